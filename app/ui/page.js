// The live view, and: what is wrong with an option is said beside its control. Gradio renders the problem below the button; it is moved from
// there to the field that it names, and the sections that hide that field are opened.
(() => {
  const ids = { negative_prompt: "negative", "prior.model": "prior", "prior.name": "prior" };
  const shown = () => document.querySelectorAll(".problem.beside");

  function control(field) {
    const id = ids[field] || field.replaceAll(".", "-");
    return document.getElementById(id) || document.getElementById(id.split("-")[0]);
  }

  function open(element) {
    for (let up = element.parentElement; up; up = up.parentElement) {
      const label = up.querySelector(":scope > button.label-wrap:not(.open)");
      if (label) label.click();
    }
  }

  function place() {
    const problem = document.querySelector("#problem .problem");
    shown().forEach((old) => old.remove());
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

  // The large view; when its run has come into another state, Gradio looks at all the rest too. Numbers alone wait for the
  // next picture, or STALE milliseconds: each change is a repaint of the page.
  const LOOK = 500;
  const STALE = 2500;
  let shownAt = 0;
  const picture = (element) => element.querySelector("img.view")?.getAttribute("src");

  async function look() {
    const name = new URLSearchParams(location.search).get("run");
    const live = document.querySelector("#live .live");
    if (!name || !live || document.hidden || live.dataset.run !== name) return;
    const answer = await fetch("live/" + encodeURIComponent(name)).catch(() => null);
    if (!answer || !answer.ok) return;
    const made = document.createElement("template");
    made.innerHTML = await answer.text();
    const next = made.content.firstElementChild;
    const old = document.querySelector("#live .live");
    if (!next || !old || old.dataset.run !== next.dataset.run || old.outerHTML === next.outerHTML) return;
    const changed = old.dataset.state !== next.dataset.state;
    if (!changed && picture(old) === picture(next) && performance.now() - shownAt < STALE) return;
    const image = next.querySelector("img.view");
    if (image) await image.decode().catch(() => null); // no flicker
    old.innerHTML = next.innerHTML; // the element itself is Gradio's
    old.dataset.state = next.dataset.state;
    shownAt = performance.now();
    if (changed) sds3dNudge();
  }
  setInterval(look, LOOK);
  window.sds3dNudge = () => document.getElementById("nudge")?.click();

  const begin = setInterval(() => {
    const place_of_problem = document.getElementById("problem");
    if (!place_of_problem) return;
    clearInterval(begin);
    new MutationObserver(place).observe(place_of_problem, { childList: true, subtree: true, characterData: true });
  }, 200);
})();
