(() => {
"use strict";
// A button copies each command. A gallery gets a filter by class, and pages that buttons and arrow keys turn.
function make(name, text, properties) {
  return Object.assign(document.createElement(name), { textContent: text, ...properties });
}

for (const command of document.querySelectorAll("pre.command")) {
  const name = "Copy " + command.textContent;
  const button = make("button", "Copy", { type: "button", ariaLabel: name, ariaLive: "polite" });
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(command);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    button.ariaLabel = null;
  });
  command.after(button);
}

for (const gallery of document.querySelectorAll(".photos[aria-label]")) {
  const items = [...gallery.children], size = 8;
  const classes = (item) => [item.dataset.true, item.dataset.predicted];
  const choice = make("select", "", { ariaLabel: "Class" }), place = make("span", "", { role: "status" });
  const bar = make("div", "", { className: "filter", role: "group", ariaLabel: gallery.ariaLabel });
  let first = 0;
  function turn(by) {
    const found = items.filter((item) => !choice.selectedIndex || classes(item).includes(choice.value));
    first += first + by >= 0 && first + by < found.length ? by : 0;
    const shown = found.slice(first, first + size);
    for (const item of items) item.hidden = !shown.includes(item);
    place.textContent = `${first + 1} to ${first + shown.length} of ${found.length}`;
  }
  bar.append(choice, ...[["Previous", -size], ["Next", size]].map(([text, by]) => {
    const button = make("button", text, { type: "button" });
    button.addEventListener("click", () => turn(by));
    return button;
  }), place);
  const names = [...new Set(items.flatMap(classes))].sort();
  choice.append(new Option("all classes"), ...names.map((name) => new Option(name, name)));
  choice.addEventListener("change", () => { first = 0; turn(0); });
  for (const target of [bar, gallery]) {
    target.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -size, ArrowRight: size }[event.key];
      if (by && event.target !== choice && !event.altKey) turn(by);
    });
  }
  gallery.tabIndex = 0;
  gallery.before(bar);
  turn(0);
}
})();
