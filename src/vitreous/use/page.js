"use strict";
// A button copies each command. Galleries get a filter by class and pages; the arrow keys turn them.
for (const command of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + command.textContent.trim());
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.removeAttribute("aria-label");
    try {
      await navigator.clipboard.writeText(command.textContent.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
  });
  command.after(button);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

for (const gallery of document.querySelectorAll(".photos.gallery")) {
  const items = [...gallery.children], size = 8;
  const names = new Set(items.flatMap((item) => [item.dataset.true, item.dataset.predicted]));
  const bar = document.createElement("div"), label = element("label", "Class "), choice = document.createElement("select");
  const previous = element("button", "Previous"), next = element("button", "Next"), place = element("span", "");
  let first = 0;
  function show(start) {
    const found = items.filter((item) => choice.selectedIndex === 0
      || [item.dataset.true, item.dataset.predicted].includes(choice.value));
    if (start >= 0 && start < Math.max(1, found.length)) first = start;
    items.forEach((item) => { item.hidden = true; });
    found.slice(first, first + size).forEach((item) => { item.hidden = false; });
    place.textContent = `${first + 1} to ${Math.min(first + size, found.length)} of ${found.length}`;
    previous.setAttribute("aria-disabled", String(first === 0));
    next.setAttribute("aria-disabled", String(first + size >= found.length));
  }
  choice.append(element("option", "all classes"), ...[...names].sort().map((name) => new Option(name, name)));
  label.append(choice);
  place.setAttribute("role", "status");
  previous.type = next.type = "button";
  bar.className = "filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", gallery.getAttribute("aria-label"));
  bar.append(label, previous, next, place);
  choice.addEventListener("change", () => show(first = 0));
  previous.addEventListener("click", () => show(first - size));
  next.addEventListener("click", () => show(first + size));
  for (const target of [bar, gallery]) {
    target.addEventListener("keydown", (event) => {
      if (event.target === choice || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") show(first - size);
      if (event.key === "ArrowRight") show(first + size);
    });
  }
  gallery.tabIndex = 0;
  gallery.before(bar);
  show(0);
}
