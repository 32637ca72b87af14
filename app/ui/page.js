// What the page does in the browser: it follows the chosen run, says what was clicked, keeps what was changed under Options, and shows what is
// wrong with an option beside its control. All addresses are relative to the page.
(() => {
  const byId = (id) => document.getElementById(id);
  const addressOf = (run) => (run ? "?run=" + encodeURIComponent(run) : location.pathname);
  const runOfAddress = () => new URLSearchParams(location.search).get("run") ?? "";

  // The chosen run. What stands over the stage is the value of a gr.HTML; while the run is under way, the newest comes by server-sent events. Numbers
  // alone wait for the next picture, or STALE milliseconds: each change is a repaint. A page that is out of sight follows nothing.
  const STALE = 1000;
  let wanted = runOfAddress(); // the run that was asked for last; null while another may come by itself: one was begun, forked, removed or brought back
  let isTyped = false; // whether the prompt holds words that a person has typed and that no run has been begun with
  window.sds3dFollow = (element, props, watch, stateChanged) => {
    let stream = null, followed = "", newest = null, shownAt = 0, last = runOfAddress();
    const view = () => element.querySelector(".live")?.dataset;

    function leave() {
      stream?.close();
      stream = null;
    }

    // The address is that of the run that is shown; one that began or was removed here changes it, and Back goes back. What else is shown than was
    // asked for came late, from before the last click.
    function name(shown) {
      const run = shown.run ?? "";
      if (shown.missing && (wanted === null || wanted.startsWith(shown.missing))) {
        wanted = "";
        history.replaceState(null, "", addressOf(""));
      }
      if (wanted === null && run !== last) {
        wanted = run;
        isTyped = false;
        if (run !== runOfAddress()) history.pushState(null, "", addressOf(run));
      }
      if (wanted !== null && wanted !== run && !isBusy && again !== wanted) {
        again = wanted;
        order({ act: "choose", run: wanted, keep: true });
      }
      last = run;
      const words = element.querySelector("h3").textContent;
      document.title = !run ? "sds3d" : `${shown.active ? `(${shown.share}) ` : ""}${words} - sds3d`;
    }

    function follow() {
      const shown = view();
      if (!shown) return;
      name(shown);
      window.sds3dShow(JSON.parse(shown.stage));
      if (!shown.active || document.hidden) return leave();
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
      if (view()?.run === message.name) window.sds3dShow(message.stage);
      const picture = message.preview && element.querySelector("img.view")?.getAttribute("src") !== message.preview;
      if (picture) {
        const image = new Image();
        image.src = message.preview;
        await image.decode().catch(() => null); // no flicker
      }
      const shown = view();
      if (message !== newest || shown?.run !== message.name) return;
      const changed = shown.state !== message.state;
      if (!message.active) leave();
      if (!changed && !picture && performance.now() - shownAt < STALE) return;
      props.value = message.view;
      shownAt = performance.now();
      if (changed) stateChanged();
    }

    watch("value", follow);
    settled = follow;
    document.addEventListener("visibilitychange", follow);
    follow();
  };

  // What was clicked: an event of the runs takes it to the server, one at a time, and the next when the page shows what came of it: Gradio drops what
  // is sent while an event is under way. The page's own load is the first.
  let clicked = [], isBusy = true, strip = null, acted = () => {}, settled = () => {}, again = null; // which run was asked for a second time
  let quality = localStorage.quality; // that was chosen last, until the page has loaded
  window.sds3dOrder = () => clicked.shift() ?? {};
  window.sds3dActed = () => {
    isBusy = false;
    document.querySelector(`#quality input[value="${quality}"]:not(:checked)`)?.click();
    quality = null;
    send();
    if (!isBusy) settled();
  };
  function send() {
    if (isBusy || !clicked.length) return;
    isBusy = true;
    acted();
  }

  function order(what) {
    if (what.act === "choose") clicked = clicked.filter(({ act }) => act !== "choose"); // the last one counts
    else if (what.act === "delete" ? what.run === wanted : what.act === "undo") wanted = null;
    clicked.push(what);
    clearSaid();
    send();
  }

  function choose(run) {
    wanted = run;
    again = null;
    order({ act: "choose", run, keep: isTyped });
    toTop();
  }

  const toTop = () => window.scrollTo({ top: 0 });
  window.addEventListener("popstate", () => choose(runOfAddress()));

  // The runs: which one is asked about, and which are picked for a comparison, outlives each new value.
  let asked = "", picked = [];
  window.sds3dStrip = (element, watch, trigger) => {
    [strip, acted] = [byId("strip"), trigger];
    new MutationObserver(arrange).observe(strip, { childList: true, subtree: true });
    send();
  };

  function arrange() {
    for (const card of strip.querySelectorAll(".card")) {
      const sure = card.querySelector(".sure"), pick = card.querySelector("[data-pick]");
      if (sure) sure.hidden = pick.dataset.pick !== asked;
      pick.setAttribute("aria-pressed", String(picked.includes(pick.dataset.pick)));
    }
  }

  function pick(run) {
    picked = picked.includes(run) ? picked.filter((one) => one !== run) : [...picked.slice(-1), run];
    if (picked.length < 2) return;
    order({ act: "compare", run: picked[0], other: picked[1] });
  }

  function fill(id, text) {
    const field = document.querySelector(`#${id} textarea, #${id} input`);
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function showOptions(isOpen) {
    document.body.classList.toggle("options-open", isOpen);
    document.querySelector("#options-button button").setAttribute("aria-expanded", String(isOpen));
  }

  document.addEventListener("click", (event) => {
    const on = (selector) => event.target.closest?.(selector);
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    const act = on("[data-act]"), words = on("[data-prompt]");
    if (on("#fork")) wanted = null;
    if (act) {
      if (act.tagName === "A" && (event.ctrlKey || event.metaKey || event.shiftKey || event.button)) return; // in a tab of its own
      event.preventDefault();
      const { act: what, ...more } = act.dataset;
      if (what === "choose") {
        if (more.run !== runOfAddress()) history.pushState(null, "", addressOf(more.run));
        choose(more.run);
      } else order({ act: what, ...more });
      asked = "";
      arrange();
    } else if (words) {
      fill("prompt", words.dataset.prompt);
      isTyped = false;
      setTimeout(() => byId("go").click());
    } else if (on("[data-close]")) clearSaid(true);
    else if (on("[data-ask]")) {
      asked = on("[data-ask]").dataset.ask;
      arrange();
      strip.querySelector(".sure:not([hidden]) [data-keep]").focus();
    } else if (on("[data-keep]")) {
      asked = "";
      arrange();
    } else if (on("[data-pick]")) {
      pick(on("[data-pick]").dataset.pick);
      arrange();
    } else if (on("[data-seed]")) {
      fill("seed", on("[data-seed]").dataset.seed);
      showOptions(true);
      toTop();
    } else if (on("#details-box button.label-wrap")) setTimeout(() => document.querySelector("#details-box button.open")?.scrollIntoView(), 200); // once it is unfolded
    else if (on("#options-button")) showOptions(!document.body.classList.contains("options-open"));
    else if (on("#go")) toTop();
  });

  // What is pressed may be made anew before it is let go, as cards are while pictures come in; browsers then tell of no click. What was pressed counts.
  const PRESSED = "a, button, summary";
  const sameAs = (one) => (other) => other.tagName === one.tagName && other.href === one.href && JSON.stringify(other.dataset) === JSON.stringify(one.dataset);
  let pressed = null;
  document.addEventListener("pointerdown", ({ target, isPrimary, button }) => {
    pressed = isPrimary && button === 0 ? target.closest?.(PRESSED) : null;
  });
  document.addEventListener("pointercancel", () => (pressed = null)); // as where a finger scrolls
  document.addEventListener("pointerup", () => {
    const isKnown = pressed && (pressed.href || Object.keys(pressed.dataset).length); // by more than its kind
    if (isKnown && !pressed.isConnected) [...document.querySelectorAll(PRESSED)].find(sameAs(pressed))?.click();
    pressed = null;
  });

  document.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    asked = "";
    arrange();
  });

  // The answer to the last click: gone when it is closed, the prompt is written anew or a run is chosen; what can be undone stays until it cannot be
  // any more.
  let clearSaid = () => {};
  window.sds3dSay = (element, props, watch) => {
    const undo = () => element.querySelector("[data-seconds]");
    clearSaid = (isClosed = false) => {
      if (props.value && (isClosed || !undo())) props.value = "";
    };
    watch("value", () => {
      place(element);
      const now = undo();
      if (now) setTimeout(() => now.isConnected && clearSaid(true), 1000 * now.dataset.seconds);
    });
  };
  document.addEventListener("input", ({ target }) => {
    if (target.closest?.("#quality")) localStorage.quality = target.value;
    if (!target.closest?.("#prompt")) return;
    isTyped = Boolean(target.value.trim());
    clearSaid();
  });

  // The menu of files stays open over each new value.
  window.sds3dMenu = (element, watch) => {
    let isOpen = false;
    element.addEventListener("toggle", ({ target }) => (isOpen = target.open), true);
    watch("value", () => {
      const menu = element.querySelector("details.menu");
      if (menu) menu.open = isOpen;
    });
  };

  // The controls under Options: what a person has changed stays when they are made anew for another scene or guidance, and nothing else is sent.
  const entered = new Map();
  const controls = () => [...document.querySelectorAll("[data-option]")];
  window.sds3dOptions = () => {
    wanted = null;
    clearSaid();
    return changed();
  };
  const changed = () =>
    Object.fromEntries(controls().map((field) => field.dataset.option).filter((key) => entered.has(key)).map((key) => [key, entered.get(key)]));
  window.sds3dControls = (element, watch) => {
    const opened = new Set(["run"]);
    let find = "";

    // Those with the words that are looked for; all without any.
    function sift() {
      for (const section of element.querySelectorAll("details")) {
        const options = [...section.querySelectorAll(".option")];
        for (const option of options) option.hidden = !`${option.id} ${option.textContent}`.toLowerCase().includes(find);
        section.hidden = options.every((option) => option.hidden);
        section.open = find ? true : opened.has(section.querySelector("summary").textContent);
      }
    }

    function fill() {
      const search = element.querySelector(".search");
      if (!search) return; // it is said why there are no controls
      search.value = find;
      sift();
      for (const field of controls()) {
        const value = entered.get(field.dataset.option) ?? field.dataset.default;
        if (field.type === "checkbox") field.checked = value === "true";
        else field.value = value;
      }
    }

    element.addEventListener("input", ({ target }) => {
      if (target.type === "search") {
        find = target.value.trim().toLowerCase();
        return sift();
      }
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

  // A problem with an option: a copy goes to the field that it names, and what hides that field is opened.
  const ids = { negative_prompt: "negative", "prior.model": "prior", "prior.name": "prior" };

  function control(field) {
    const id = ids[field] || field.replaceAll(".", "-");
    return byId(id) || byId(id.split("-")[0]);
  }

  function place(say) {
    const problem = say.querySelector(".problem"), column = byId("options-column");
    document.querySelectorAll(".problem.beside").forEach((old) => old.remove());
    document.querySelectorAll(".wrong").forEach((old) => old.classList.remove("wrong"));
    const beside = problem?.dataset.field && control(problem.dataset.field);
    if (!beside || !column.contains(beside)) return;
    const copy = problem.cloneNode(true);
    copy.classList.add("beside");
    showOptions(true);
    const section = beside.closest("details:not([open])");
    section?.querySelector("summary").click();
    beside.classList.add("wrong");
    beside.after(copy);
    copy.scrollIntoView({ block: "nearest" });
  }
})();
