// An image file -> the pixels that the model gets, as Pillow and `Preprocess` compute them.

const Pixels = (() => {
  const BITS = 22; // of the fraction in Pillow's arithmetic
  const MOST_PIXELS = 16_000_000; // of a canvas on phones

  function bytesOf(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  async function decode(blob) {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / bitmap.width / bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
    const context = Object.assign(document.createElement("canvas"), { width, height })
      .getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white"; // behind transparent pixels
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    return context.getImageData(0, 0, width, height);
  }

  // RGBA of any size -> `[height, width, channels]` in the size of the model.
  function prepare({ width, height, data }, settings) {
    const { img_size: [toHeight, toWidth], in_chans: channels, fit, may_turn: mayTurn } = settings;
    const image = { height, width, channels, mayTurn, data: withChannels(data, channels) };
    if (height === toHeight && width === toWidth) return image.data;
    if (fit === "pad") return padded(image, toHeight, toWidth);
    const zoom = Math.min(width / toWidth, height / toHeight);
    const left = fit === "crop" ? Math.max(0, (width - zoom * toWidth) / 2) : 0;
    const top = fit === "crop" ? Math.max(0, (height - zoom * toHeight) / 2) : 0;
    return resize(image, toHeight, toWidth, [left, top, width - left, height - top]);
  }

  function withChannels(rgba, channels) {
    const found = new Uint8Array((rgba.length / 4) * channels);
    for (let i = 0, at = 0; i < rgba.length; i += 4) {
      const red = rgba[i], green = rgba[i + 1], blue = rgba[i + 2];
      // Pillow's luma (ITU-R 601-2) in 16 bits
      if (channels === 1) found[at++] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
      else { found[at++] = red; found[at++] = green; found[at++] = blue; }
    }
    return found;
  }

  function padded(image, toHeight, toWidth) {
    const { height, width, channels } = image, zoom = Math.min(toWidth / width, toHeight / height);
    const inner = (side, most) => Math.max(1, Math.min(most, roundedToEven(side * zoom)));
    const h = inner(height, toHeight), w = inner(width, toWidth);
    const top = Math.floor((toHeight - h) / 2), left = Math.floor((toWidth - w) / 2);
    const resized = resize(image, h, w, [0, 0, width, height]);
    const found = new Uint8Array(toHeight * toWidth * channels);
    for (let i = 0; i < found.length; i++) {
      const pixel = Math.floor(i / channels), limit = (place, most) => Math.max(0, Math.min(most - 1, place));
      const row = limit(Math.floor(pixel / toWidth) - top, h), column = limit((pixel % toWidth) - left, w);
      found[i] = resized[(row * w + column) * channels + (i % channels)];
    }
    return found;
  }

  function roundedToEven(value) {
    const rounded = Math.round(value);
    return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
  }

  // Pillow's bicubic resampling of the box [left, top, right, bottom], in whole numbers. It resizes rows first, but
  // since version 13 columns first if that saves more.
  function resize({ height, width, channels, data, mayTurn }, toHeight, toWidth, [left, top, right, bottom]) {
    const across = windows(width, left, right, toWidth), down = windows(height, top, bottom, toHeight);
    const turns = mayTurn && height - toHeight > Math.max(0, 2 * (width - toWidth));
    if (turns) return resample(resample(data, 1, height, width * channels, down), toHeight, width, channels, across);
    return resample(resample(data, height, width, channels, across), 1, height, toWidth * channels, down);
  }

  function windows(size, from, to, count) {
    const start = Math.fround(from), scale = Math.fround(Math.fround(to) - start) / count; // Pillow's box is float32
    const zoom = Math.max(1, scale), reach = 2 * zoom, perPixel = 1 / zoom;
    return Array.from({ length: count }, (_, place) => {
      const center = start + (place + 0.5) * scale;
      const first = Math.max(0, Math.trunc(center - reach + 0.5));
      const end = Math.min(size, Math.trunc(center + reach + 0.5));
      const weights = Array.from({ length: end - first }, (_, i) => cubic((i + first - center + 0.5) * perPixel));
      const total = weights.reduce((a, b) => a + b, 0);
      const whole = (value) => Math.sign(value) * Math.round(Math.abs(value)); // halves away from 0
      return { first, weights: Int32Array.from(weights, (weight) => whole((weight / total) * 2 ** BITS)) };
    });
  }

  function cubic(value) {
    const x = Math.abs(value);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  }

  // Data `[outer, size, inner]` -> `[outer, places.length, inner]`
  function resample(data, outer, size, inner, places) {
    const found = new Uint8Array(outer * places.length * inner);
    let at = 0;
    for (let block = 0; block < outer; block++) {
      for (const { first, weights } of places) {
        for (let i = 0; i < inner; i++) {
          let sum = 1 << (BITS - 1), from = (block * size + first) * inner + i;
          for (let k = 0; k < weights.length; k++, from += inner) sum += weights[k] * data[from];
          found[at++] = Math.max(0, Math.min(255, sum >> BITS));
        }
      }
    }
    return found;
  }

  return { bytesOf, decode, prepare };
})();
