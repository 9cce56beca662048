"use strict";
// An ONNX file -> probabilities by ONNX Runtime, and how much each region of an image contributes to them.
//
// It has the interface of `engine.js`. One thread is used, because a local file cannot share memory with others.

const Engine = (() => {
  const MOST_REGIONS = 8; // in a row or column of a heat map; each of them takes as long as a photo

  async function unpacked(base64) {
    const packed = new Blob([Pixels.bytesOf(base64)]).stream();
    return new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  }

  async function open({ wasm, onnx, hidden, preprocess: { img_size: size, in_chans: channels } }) {
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: await unpacked(wasm) });
    const session = await ort.InferenceSession.create(await unpacked(onnx)), [height, width] = size;
    const grid = size.map((side) => Math.min(side, MOST_REGIONS)), [rows, columns] = grid;
    await answer(new Uint8Array(height * width * channels)); // the first run prepares what later ones use

    // Without the region of this number, if there is one, which gets the color `hidden`
    async function answer(pixels, region = -1) {
      const shown = Uint8Array.from(pixels), end = (place, side, count) => Math.round((place * side) / count);
      const row = Math.floor(region / columns), column = region % columns;
      for (let y = end(row, height, rows); row >= 0 && y < end(row + 1, height, rows); y++) {
        for (let x = end(column, width, columns); x < end(column + 1, width, columns); x++) {
          shown.set(hidden, (y * width + x) * channels);
        }
      }
      await new Promise((resolve) => setTimeout(resolve)); // so that the page can react in between
      const { probabilities, unfamiliar } = await session.run({
        photos: new ort.Tensor("uint8", shown, [1, height, width, channels]),
      });
      return { values: Array.from(probabilities.data), unfamiliar: unfamiliar?.data[0] };
    }

    async function explain(pixels, isWanted, report) {
      const { values } = await answer(pixels), falls = [];
      for (let region = 0; region < rows * columns && isWanted(); region++) {
        const without = (await answer(pixels, region)).values;
        falls.push(values.map((value, i) => value - without[i]));
        report(falls.length / (rows * columns));
      }
      return isWanted() ? falls : undefined;
    }

    const removed = "if the region gets the mean color of the training images";
    return { grid, parts: "regions", value: "probability", removed, classify: (pixels) => answer(pixels), explain };
  }

  return { open };
})();
