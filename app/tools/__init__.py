"""Programs for developers: training the embedded prior and the evaluation's classifier."""
