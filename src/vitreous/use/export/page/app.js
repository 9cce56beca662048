// The elements of `app.html` -> a photo is chosen, classified and explained. Nothing leaves the page.

(() => {
  const MOST_SECONDS = 10; // a heat map that takes longer is made when it is asked for
  const RAISES = [200, 60, 20], LOWERS = [30, 90, 190];

  function start(root) {
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const data = JSON.parse(root.querySelector("script").textContent);
    const [status, result, picture, caption] = ["status", "result", "picture", "caption"].map(part);
    let opened = null, model = null, turn = 0, shown = null; // `turn` counts the images; an older one is no longer wanted

    async function show(blob) {
      const mine = ++turn, isWanted = () => mine === turn;
      status.textContent = "Reading the image …";
      result.hidden = true;
      let pixels;
      try {
        pixels = Pixels.prepare(await Pixels.decode(blob), data.preprocess);
      } catch {
        if (isWanted()) status.textContent = "The browser cannot read this file; choose a JPEG, PNG or WebP image.";
        return;
      }
      if (isWanted() && !model) status.textContent = "Starting the model …";
      try {
        opened = opened || Engine.open(data);
        model = await opened;
      } catch (error) {
        opened = null;
        status.textContent = `The model does not run in this browser (${error.message}); use a newer one.`;
        return;
      }
      if (isWanted()) await classify(pixels, isWanted);
    }

    async function classify(pixels, isWanted) {
      const began = performance.now(), found = await model.classify(pixels, isWanted);
      if (!found) return;
      const seconds = (performance.now() - began) / 1000, { values, unfamiliar } = found;
      shown = { pixels, falls: null, target: 0, isWanted };
      list(values);
      draw();
      if (unfamiliar !== undefined) compare(unfamiliar);
      status.textContent = `${sentence(values)} Computed in ${seconds.toFixed(2)} s in this browser.`;
      result.hidden = false;
      offerMap(seconds * (model.grid[0] * model.grid[1]));
    }

    const predicted = (values) => {
      const order = Answer.order(values);
      return data.thresholds ? order.filter((i) => values[i] >= data.thresholds[i]) : order.slice(0, 1);
    };

    function sentence(values) {
      const found = predicted(values).map((i) => `${data.classes[i]} (${Answer.percent(values[i])})`);
      return found.length ? `Predicted: ${found.join(", ")}.` : Answer.NO_LABEL;
    }

    function list(values) {
      [shown.target] = Answer.order(values);
      Answer.list(part("classes"), data.classes, values, predicted(values), (number) => {
        shown.target = number;
        draw();
      });
    }

    function compare(percentile) {
      Answer.compare(part("familiarity"), percentile, percentile >= data.flagged);
    }

    // The image as the model gets it and, once it is known, what each patch contributes to the chosen class.
    function draw() {
      const [height, width] = data.preprocess.img_size, channels = data.preprocess.in_chans, { pixels, falls } = shown;
      const small = Object.assign(document.createElement("canvas"), { width, height });
      const zoom = Math.max(1, Math.round(320 / width)), drawn = new ImageData(width, height);
      for (let i = 0; i < width * height; i++) {
        for (let c = 0; c < 3; c++) drawn.data[4 * i + c] = pixels[i * channels + (channels === 1 ? 0 : c)];
        drawn.data[4 * i + 3] = 255;
      }
      small.getContext("2d").putImageData(drawn, 0, 0);
      Object.assign(picture, { width: width * zoom, height: height * zoom });
      const context = picture.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, picture.width, picture.height);
      Answer.press(part("classes"), falls ? shown.target : null);
      caption.textContent = "The image as the model gets it.";
      if (falls) drawMap(context);
    }

    function drawMap(context) {
      const values = shown.falls.map((fall) => fall[shown.target]), [down, across] = model.edges;
      const columns = model.grid[1], zoom = picture.width / across[columns];
      const most = Math.max(...values.map(Math.abs)) || 1, best = values.indexOf(Math.max(...values));
      values.forEach((value, i) => {
        context.fillStyle = `rgba(${(value > 0 ? RAISES : LOWERS).join(",")},${((0.7 * Math.abs(value)) / most).toFixed(3)})`;
        const row = Math.floor(i / columns), column = i % columns;
        const [left, right, top, bottom] = [across[column], across[column + 1], down[row], down[row + 1]];
        context.fillRect(left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom);
      });
      caption.textContent =
        `Red ${model.parts} raise the ${model.value} of “${data.classes[shown.target]}”, blue ones lower it. The color ` +
        `shows by how much the ${model.value} falls ${model.removed}: most, by ${values[best].toPrecision(2)}, for row ` +
        `${Math.floor(best / columns) + 1}, column ${(best % columns) + 1}. Choose another class to see its map.`;
    }

    function offerMap(seconds) {
      const button = part("explain"), image = shown;
      part("progress").hidden = true; // of an earlier image
      button.hidden = model.grid[0] * model.grid[1] < 2;
      button.textContent = `Show which ${model.parts} matter (about ${Math.max(1, Math.round(seconds))} s)`;
      button.onclick = () => explain(image);
      if (!button.hidden && seconds <= MOST_SECONDS) explain(image);
    }

    async function explain(image) {
      const progress = part("progress"), report = (share) => { progress.value = share; };
      part("explain").hidden = true;
      Object.assign(progress, { hidden: false, value: 0 });
      const falls = await model.explain(image.pixels, image.isWanted, report);
      if (!falls) return;
      progress.hidden = true;
      image.falls = falls;
      draw();
    }

    const useFile = ([file]) => { if (file) show(file); };

    for (const input of root.querySelectorAll("input")) {
      input.addEventListener("change", () => {
        useFile(input.files);
        input.value = ""; // the same file may be chosen again
      });
    }
    for (const kind of ["dragover", "dragleave", "drop"]) {
      root.addEventListener(kind, (event) => {
        event.preventDefault();
        root.classList.toggle("over", kind === "dragover");
        if (kind === "drop") useFile(event.dataTransfer.files);
      });
    }
    part("example").hidden = !data.example;
    part("example").addEventListener("click", () => {
      show(new Blob([Pixels.bytesOf(data.example)], { type: "image/png" }));
    });
    status.textContent = "";
  }

  for (const root of document.querySelectorAll(".try-it")) start(root);
})();
