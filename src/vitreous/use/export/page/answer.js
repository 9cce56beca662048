// Probabilities of classes -> a list of buttons, the most probable first; and what is said about an image.
const Answer = (() => {
  const MOST_CLASSES = 5, NO_LABEL = "No label is probable enough to be predicted.";
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const order = (shares) => [...shares.keys()].sort((a, b) => shares[b] - shares[a]);

  // Fills an element of the class `answer`; pressing the button of a class calls `choose` with its number.
  function list(element, names, shares, predicted, choose) {
    const shown = order(shares).slice(0, Math.max(MOST_CLASSES, predicted.length));
    element.replaceChildren(...shown.map((number) => {
      const tags = ["li", "button", "i", "bdi", "span"];
      const [item, button, bar, name, value] = tags.map((tag) => document.createElement(tag));
      bar.style.width = percent(shares[number]);
      name.textContent = names[number];
      value.textContent = percent(shares[number]);
      button.type = "button";
      button.classList.toggle("predicted", predicted.includes(number));
      button.append(bar, name, value);
      button.addEventListener("click", () => choose(number));
      button.dataset.number = number;
      item.append(button);
      return item;
    }));
  }

  function press(element, number) {
    for (const button of element.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.number) === number));
    }
  }

  // `unfamiliar` is a percentile among the validation images; `isFlagged` from the one on that `predict` marks.
  function compare(element, unfamiliar, isFlagged) {
    element.textContent = `Less like the training images than ${percent(unfamiliar)} of the validation images` +
      (isFlagged ? ", so these probabilities may mean little." : ".");
    element.classList.toggle("warning", isFlagged);
    element.hidden = false;
  }

  return { NO_LABEL, percent, order, list, press, compare };
})();
