// What the page does in the browser: it follows the chosen run, keeps what was changed under Advanced, and shows what is wrong with an option
// beside its control.
(() => {
  // The chosen run. Its view is the value of a gr.HTML; while it is under way, the newest view comes by server-sent events. Numbers alone wait for
  // the next picture, or STALE milliseconds: each change is a repaint. A page that is out of sight follows nothing.
  const STALE = 2500;
  window.sds3dFollow = (element, props, watch, stateChanged) => {
    let stream = null, followed = "", newest = null, shownAt = 0;
    const run = () => element.querySelector("[data-run]")?.dataset;

    function leave() {
      stream?.close();
      stream = null;
    }

    function follow() {
      const shown = run();
      if (shown && new URLSearchParams(location.search).get("run") !== shown.run) {
        history.replaceState(null, "", "?run=" + encodeURIComponent(shown.run));
      }
      window.sds3dShow(shown?.stage ? JSON.parse(shown.stage) : null);
      if (!shown?.active || document.hidden) return leave();
      if (stream && followed === shown.run) return;
      leave();
      followed = shown.run;
      stream = new EventSource("events/" + encodeURIComponent(followed));
      stream.onmessage = (event) => show((newest = JSON.parse(event.data)));
      stream.onerror = () => {
        if (stream?.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
        leave();
        stateChanged();
      };
    }

    async function show(message) {
      if (run()?.run === message.name) window.sds3dShow(message.stage);
      const picture = message.preview && element.querySelector("img.view")?.getAttribute("src") !== message.preview;
      if (picture) {
        const image = new Image();
        image.src = message.preview;
        await image.decode().catch(() => null); // no flicker
      }
      const shown = run();
      if (message !== newest || shown?.run !== message.name) return;
      const changed = shown.state !== message.state;
      if (!message.active) leave();
      if (!changed && !picture && performance.now() - shownAt < STALE) return;
      props.value = message.view;
      shownAt = performance.now();
      if (changed) stateChanged();
    }

    watch("value", follow);
    document.addEventListener("visibilitychange", follow);
    follow();
  };

  // The controls under Advanced: what a person has changed stays when they are made anew for another scene or guidance, and nothing else is sent.
  const entered = new Map();
  const controls = () => [...document.querySelectorAll("[data-option]")];
  window.sds3dOptions = () =>
    Object.fromEntries(controls().map((field) => field.dataset.option).filter((key) => entered.has(key)).map((key) => [key, entered.get(key)]));
  window.sds3dControls = (element, watch) => {
    const opened = new Set(["run"]);

    function fill() {
      for (const section of element.querySelectorAll("details")) section.open = opened.has(section.firstChild.textContent);
      for (const field of controls()) {
        const value = entered.get(field.dataset.option) ?? field.dataset.default;
        if (field.type === "checkbox") field.checked = value === "true";
        else field.value = value;
      }
    }

    element.addEventListener("input", ({ target }) => {
      const value = target.type === "checkbox" ? String(target.checked) : target.value.trim();
      if (value === target.dataset.default || value === "") entered.delete(target.dataset.option);
      else entered.set(target.dataset.option, value);
    });
    element.addEventListener("click", ({ target }) => {
      if (target.tagName === "SUMMARY" && !opened.delete(target.textContent)) opened.add(target.textContent);
    });
    watch("value", fill);
    fill();
  };

  // A problem with an option. Gradio shows it below the button; a copy goes to the field that it names, and what hides that field is opened.
  const ids = { negative_prompt: "negative", "prior.model": "prior", "prior.name": "prior" };

  function control(field) {
    const id = ids[field] || field.replaceAll(".", "-");
    return document.getElementById(id) || document.getElementById(id.split("-")[0]);
  }

  function open(element) {
    for (let up = element.parentElement; up; up = up.parentElement) {
      if (up.tagName === "DETAILS" && !up.open) up.querySelector("summary").click();
      up.querySelector(":scope > button.label-wrap:not(.open)")?.click();
    }
  }

  function place() {
    const problem = document.querySelector("#problem .problem");
    document.querySelectorAll(".problem.beside").forEach((old) => old.remove());
    document.querySelectorAll(".wrong").forEach((old) => old.classList.remove("wrong"));
    const beside = problem && problem.dataset.field && control(problem.dataset.field);
    if (!beside) return;
    const copy = problem.cloneNode(true);
    copy.classList.add("beside");
    open(beside);
    beside.classList.add("wrong");
    beside.after(copy);
    copy.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  const begin = setInterval(() => {
    const below = document.getElementById("problem");
    if (!below) return;
    clearInterval(begin);
    new MutationObserver(place).observe(below, { childList: true, subtree: true, characterData: true });
  }, 200);
})();
