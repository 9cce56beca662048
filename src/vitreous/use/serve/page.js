// Photos that are chosen, taken, dropped or pasted -> the answer of each model, and what it is based on.
(() => {
"use strict";
const find = (query) => document.querySelector(query);
const status = find("[role=status]"), photos = find("#photos"), key = find("#key");
let queue = Promise.resolve(), waiting = 0;

function make(name, text, properties) {
  return Object.assign(document.createElement(name), { textContent: text, ...properties });
}

async function ask(path, parameters, photo) {
  const given = key.querySelector("input").value;
  const headers = { "Content-Type": "application/octet-stream", ...(given && { Authorization: `Bearer ${given}` }) };
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, { method: "POST", body: photo, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) key.querySelector("input").focus();
  const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Error(error);
}

const reason = (error) => (error instanceof TypeError ? "The server does not answer." : error.message);

function picture(address, text) {
  const figure = make("figure", ""), image = make("img", "", { alt: text, src: address });
  image.addEventListener("error", () => { image.hidden = true; }); // the server may read formats that browsers do not
  figure.append(image, make("figcaption", text));
  return figure;
}

async function show(photo) {
  const item = make("li", "");
  item.append(picture(URL.createObjectURL(photo), photo.name));
  photos.prepend(item);
  const models = [...document.querySelectorAll("#models input:checked")].map((box) => box.value);
  await Promise.all(models.map((model) => classify(item, photo, model)));
}

async function classify(item, photo, model) {
  const section = make("section", "");
  section.append(make("h2", model), make("p", "Classifying …"));
  item.append(section);
  try {
    const { predictions: [found] } = await (await ask("predict", { model }, photo)).json();
    section.lastChild.remove();
    list(section, photo, model, found);
  } catch (error) {
    section.lastChild.textContent = reason(error);
  }
}

function list(section, photo, model, found) {
  const names = Object.keys(found.probabilities), shares = Object.values(found.probabilities);
  const classes = make("ol", "", { className: "answer" }), familiarity = make("p", "", { hidden: true });
  const choose = (number) => explain(section, classes, photo, model, number, names[number]);
  Answer.list(classes, names, shares, found.labels.map((label) => names.indexOf(label)), choose);
  section.append(classes);
  if (!found.labels.length) section.append(make("p", Answer.NO_LABEL));
  if (found.set && found.set.length > 1) section.append(make("p", `Set that contains the class: ${found.set.join(", ")}`));
  if (found.unfamiliar !== undefined) Answer.compare(familiarity, found.unfamiliar, found.is_unfamiliar);
  section.append(familiarity);
  choose(Answer.order(shares)[0]);
}

async function explain(section, classes, photo, model, number, target) {
  Answer.press(classes, number);
  section.dataset.number = number;
  let figure;
  try {
    const answer = await ask("explain", { model, target }, photo), finding = answer.headers.get("X-Finding");
    figure = picture(URL.createObjectURL(await answer.blob()), `Red raises the score of “${target}”, blue lowers it; ${finding}.`);
  } catch (error) {
    figure = make("figure", reason(error));
  }
  if (section.dataset.number !== String(number)) return; // another class has been chosen since
  for (const older of section.querySelectorAll("figure")) older.remove();
  section.append(figure);
}

function take(files) {
  for (const file of files) {
    waiting += 1;
    queue = queue.then(() => show(file)).then(() => {
      waiting -= 1;
      status.textContent = waiting ? `${waiting} to go …` : `${photos.children.length} done`;
    });
  }
}

for (const input of document.querySelectorAll("#choose input")) {
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // the same file may be chosen again
  });
}
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
})();
