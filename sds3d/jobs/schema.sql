CREATE TABLE about (id TEXT NOT NULL, revision INTEGER NOT NULL, claims INTEGER NOT NULL);

CREATE TABLE job (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    added REAL NOT NULL,
    prompt TEXT NOT NULL, seed INTEGER NOT NULL, guidance TEXT NOT NULL, scene TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    reason TEXT NOT NULL DEFAULT '',
    intent TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    began INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    revision INTEGER NOT NULL
);
CREATE INDEX job_by_state ON job (state, number);
CREATE INDEX job_by_revision ON job (revision);

CREATE TABLE command (
    job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE, number INTEGER NOT NULL, command TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

CREATE TABLE deleted (revision INTEGER NOT NULL, name TEXT NOT NULL);
