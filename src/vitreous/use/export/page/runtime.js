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
    const edgesOf = (side, count) => Array.from({ length: count + 1 }, (_, i) => Math.round((i * side) / count));
    const edges = [edgesOf(height, rows), edgesOf(width, columns)], [down, across] = edges;
    await answer(new Uint8Array(height * width * channels)); // the first run prepares what later ones use

    // Without the region of this number, if there is one, which gets the color `hidden`
    async function answer(pixels, region = -1) {
      const shown = Uint8Array.from(pixels), row = Math.floor(region / columns), column = region % columns;
      for (let y = down[row]; row >= 0 && y < down[row + 1]; y++) {
        for (let x = across[column]; x < across[column + 1]; x++) {
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
    return { grid, edges, parts: "regions", value: "probability", removed, classify: (pixels) => answer(pixels), explain };
  }

  return { open };
})();
