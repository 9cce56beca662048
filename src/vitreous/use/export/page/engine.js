"use strict";
// A packed Vision Transformer, an image -> logits, and how much each patch contributes to them.
//
// A model is described by its configuration and by a tree of weights with the names of its modules in Python. Tokens
// are rows of one array. Numbers are doubles, which need no conversion and round less than Python's. Long computations
// are generators that yield often, so the page stays responsive without a worker, which a local file may not start.

const Engine = (() => {
  const Numbers = Float64Array;
  const sigmoid = (value) => 1 / (1 + Math.exp(-value));
  const sum = (x, y) => x.map((value, i) => value + y[i]);

  const ACTIVATIONS = {
    gelu: (value) => (value * (1 + erf(value * Math.SQRT1_2))) / 2,
    gelu_tanh: (value) => (value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3)))) / 2,
    quick_gelu: (value) => value * sigmoid(1.702 * value),
    relu: (value) => Math.max(0, value),
    silu: (value) => value * sigmoid(value),
  };

  // Abramowitz and Stegun 1964, 7.1.26; the error is below 1.5e-7.
  function erf(value) {
    const t = 1 / (1 + 0.3275911 * Math.abs(value));
    const series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)));
    const tail = t * series * Math.exp(-value * value);
    return value < 0 ? tail - 1 : 1 - tail;
  }

  // Weights: base64 -> the description of the model, in which weights replace their places.

  function load(data) {
    const floats = Numbers.from(new Float32Array(Pixels.bytesOf(data.floats).buffer));
    const integers = new Int8Array(Pixels.bytesOf(data.integers).buffer);
    const restored = (node) => {
      if (node === null || typeof node !== "object") return node;
      if (Array.isArray(node)) return node.map(restored);
      if ("count" in node) return floats.subarray(node.at, node.at + node.count);
      const found = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, restored(value)]));
      if ("scales" in found) found.weight = dequantized(integers, found);
      return found;
    };
    const model = restored(data.model), { img_size: size, patch_size: side, embed_dim: width } = model.config;
    return { ...model, grid: size.map((length) => length / side), numPrefix: model.prefix.length / width };
  }

  function dequantized(integers, { at, rows, columns, scales }) {
    const weight = new Numbers(rows * columns);
    for (let row = 0; row < rows; row++) {
      for (let i = row * columns; i < (row + 1) * columns; i++) weight[i] = integers[at + i] * scales[row];
    }
    return weight;
  }

  // Multiply rows `[n, columns]` by the rows of a matrix `[rows, columns]`; returns `[n, rows]`. A block of 4 x 2
  // results reuses each number that is read. At an edge, a block computes some results twice.
  function multiply(x, n, weight, rows, columns, bias) {
    const y = new Numbers(n * rows);
    for (let o0 = 0; o0 < rows; o0 += 2) {
      const o1 = Math.min(o0 + 1, rows - 1), w0 = o0 * columns, w1 = o1 * columns;
      const bias0 = bias ? bias[o0] : 0, bias1 = bias ? bias[o1] : 0;
      for (let i0 = 0; i0 < n; i0 += 4) {
        const i1 = Math.min(i0 + 1, n - 1), i2 = Math.min(i0 + 2, n - 1), i3 = Math.min(i0 + 3, n - 1);
        const x0 = i0 * columns, x1 = i1 * columns, x2 = i2 * columns, x3 = i3 * columns;
        let a0 = bias0, a1 = bias0, a2 = bias0, a3 = bias0, b0 = bias1, b1 = bias1, b2 = bias1, b3 = bias1;
        for (let k = 0; k < columns; k++) {
          const u = weight[w0 + k], v = weight[w1 + k];
          const p0 = x[x0 + k], p1 = x[x1 + k], p2 = x[x2 + k], p3 = x[x3 + k];
          a0 += p0 * u; a1 += p1 * u; a2 += p2 * u; a3 += p3 * u;
          b0 += p0 * v; b1 += p1 * v; b2 += p2 * v; b3 += p3 * v;
        }
        y[i0 * rows + o0] = a0; y[i1 * rows + o0] = a1; y[i2 * rows + o0] = a2; y[i3 * rows + o0] = a3;
        y[i0 * rows + o1] = b0; y[i1 * rows + o1] = b1; y[i2 * rows + o1] = b2; y[i3 * rows + o1] = b3;
      }
    }
    return y;
  }

  const linear = (x, layer) =>
    multiply(x, x.length / layer.columns, layer.weight, layer.rows, layer.columns, layer.bias);

  // LayerNorm or RMSNorm of each row; GroupNorm(1) of all numbers at once; or nothing.
  function norm(x, layer) {
    if (!layer || layer.kind === "Identity") return x;
    const { weight, bias, eps, kind } = layer, width = weight.length, y = new Numbers(x.length);
    const size = kind === "GroupNorm" ? x.length : width;
    for (let start = 0; start < x.length; start += size) {
      let mean = 0, square = 0;
      if (kind !== "RMSNorm") for (let i = start; i < start + size; i++) mean += x[i] / size;
      for (let i = start; i < start + size; i++) square += (x[i] - mean) ** 2 / size;
      const scale = 1 / Math.sqrt(square + eps);
      for (let i = start; i < start + size; i++) {
        const channel = (i - start) % width;
        y[i] = (x[i] - mean) * scale * weight[channel] + (bias ? bias[channel] : 0);
      }
    }
    return y;
  }

  // A first layer twice as wide as the second one's input is gated: one half scales the other.
  function mlp(x, { fc1, fc2 }, { act }) {
    const hidden = linear(x, fc1), width = fc2.columns, isGated = fc1.rows > width, apply = ACTIVATIONS[act];
    const y = new Numbers((hidden.length / fc1.rows) * width);
    for (let i = 0; i < y.length; i++) {
      const at = Math.floor(i / width) * fc1.rows + (i % width);
      y[i] = apply(hidden[at]) * (isGated ? hidden[at + width] : 1);
    }
    return linear(y, fc2);
  }

  // Softmax of each row, in place.
  function softmax(x, width) {
    for (let start = 0; start < x.length; start += width) {
      let largest = -Infinity, total = 0;
      for (let i = start; i < start + width; i++) largest = Math.max(largest, x[i]);
      for (let i = start; i < start + width; i++) total += x[i] = Math.exp(x[i] - largest);
      for (let i = start; i < start + width; i++) x[i] /= total;
    }
    return x;
  }

  function columnsOf(x, width, from, count) {
    const n = x.length / width, y = new Numbers(n * count);
    for (let i = 0; i < n; i++) y.set(x.subarray(i * width + from, i * width + from + count), i * count);
    return y;
  }

  function transposed(x, width) {
    const n = x.length / width, y = new Numbers(x.length);
    for (let i = 0; i < n; i++) for (let c = 0; c < width; c++) y[c * n + i] = x[i * width + c];
    return y;
  }

  // Attention of a block. `places` are the numbers of the tokens in the whole sequence, prefix tokens first.
  function attend(x, model, number, places) {
    const { config, rotations: { [number]: rotation } } = model, layer = model.encoder.blocks[number].attn;
    const n = places.length, inner = layer.proj.columns, heads = config.num_heads, width = inner / heads;
    const factor = config.locality ? Math.exp(layer.log_scale[0]) : 1 / Math.sqrt(width);
    const all = linear(x, layer.qkv), joined = new Numbers(n * inner);
    for (let head = 0; head < heads; head++) {
      const part = (which) => columnsOf(all, 3 * inner, which * inner + head * width, width);
      const queries = rotate(norm(part(0), layer.q_norm), rotation, head, places);
      const keys = rotate(norm(part(1), layer.k_norm), rotation, head, places);
      const scores = multiply(queries, n, keys, n, width);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          const bias = model.bias ? biasOf(model, number * heads + head, places[i], places[j]) : 0;
          scores[i * n + j] = config.locality && i === j && n > 1 ? -Infinity : scores[i * n + j] * factor + bias;
        }
      }
      const found = multiply(softmax(scores, n), n, transposed(part(2), width), width, n);
      for (let i = 0; i < n; i++) joined.set(found.subarray(i * width, (i + 1) * width), i * inner + head * width);
    }
    if (layer.gate) linear(x, layer.gate).forEach((gate, i) => { joined[i] *= sigmoid(gate); });
    return linear(joined, layer.proj);
  }

  // Rotate pairs of channels (c, c + half) by the angle of the token.
  function rotate(x, rotation, head, places) {
    if (!rotation) return x;
    const { heads, cos, sin } = rotation, half = x.length / places.length / 2, y = new Numbers(x.length);
    const tokens = cos.length / heads / half;
    for (let i = 0; i < places.length; i++) {
      const table = ((heads > 1 ? head : 0) * tokens + places[i]) * half;
      for (let c = 0; c < half; c++) {
        const first = 2 * half * i + c, second = first + half;
        y[first] = x[first] * cos[table + c] - x[second] * sin[table + c];
        y[second] = x[second] * cos[table + c] + x[first] * sin[table + c];
      }
    }
    return y;
  }

  // A bias for each distance of two patches, and three for pairs with prefix tokens; heads count over all blocks.
  function biasOf({ bias: { table, prefix_table: prefix }, grid: [rows, columns], numPrefix }, head, query, key) {
    const from = query - numPrefix, to = key - numPrefix;
    if (from < 0 || to < 0) return prefix[3 * head + (to >= 0 ? 0 : from >= 0 ? 1 : 2)];
    const down = Math.floor(from / columns) - Math.floor(to / columns) + rows - 1;
    const across = (from % columns) - (to % columns) + columns - 1;
    return table[(head * (2 * rows - 1) + down) * (2 * columns - 1) + across];
  }

  // Stems: image `[pixels, channels]` -> a row for each patch, which may also see shifted copies of the image

  function patchify(image, { grid: [rows, columns], config: { in_chans: channels, patch_size: side, stem } }) {
    const height = rows * side, width = columns * side, half = Math.floor(side / 2), shifts = [[0, 0]];
    if (stem === "shifted") shifts.push([half, half], [half, -half], [-half, half], [-half, -half]);
    const y = new Numbers(shifts.length * image.length);
    let at = 0;
    for (let patch = 0; patch < rows * columns; patch++) {
      const top = Math.floor(patch / columns) * side, left = (patch % columns) * side;
      for (const [down, across] of shifts) {
        for (let channel = 0; channel < channels; channel++) {
          for (let pixel = 0; pixel < side * side; pixel++) {
            const row = top + Math.floor(pixel / side) - down, column = left + (pixel % side) - across;
            const isInside = row >= 0 && row < height && column >= 0 && column < width;
            y[at++] = isInside ? image[(row * width + column) * channels + channel] : 0;
          }
        }
      }
    }
    return y;
  }

  // 3 x 3 windows around every `stride`-th pixel; `use` gets those of one row at a time, `[columns, 9, channels]`.
  function eachRowOfWindows(x, height, width, channels, stride, outside, use) {
    const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride);
    const windows = new Numbers(columns * 9 * channels);
    for (let row = 0; row < rows; row++) {
      for (let at = 0; at < windows.length; at++) {
        const pixel = Math.floor(at / channels), near = pixel % 9;
        const y = row * stride + Math.floor(near / 3) - 1, z = Math.floor(pixel / 9) * stride + (near % 3) - 1;
        const isInside = y >= 0 && y < height && z >= 0 && z < width;
        windows[at] = isInside ? x[(y * width + z) * channels + (at % channels)] : outside;
      }
      use(windows);
    }
    return [rows, columns];
  }

  function convolve(image, { grid, config, tokenizer }) {
    let x = image, [height, width] = grid.map((count) => count * config.patch_size), channels = config.in_chans;
    for (const layer of tokenizer.layers) {
      if (layer.kind === "ReLU") x = x.map(ACTIVATIONS.relu);
      if (layer.kind === "GroupNorm") x = norm(x, layer);
      if (layer.kind !== "Conv2d" && layer.kind !== "MaxPool2d") continue;
      const isPool = layer.kind === "MaxPool2d", stride = isPool ? 2 : layer.stride, parts = [];
      [height, width] = eachRowOfWindows(x, height, width, channels, stride, isPool ? -Infinity : 0, (windows) => {
        parts.push(isPool ? largestOf(windows, channels) : linear(windows, layer));
      });
      channels = isPool ? channels : layer.rows;
      x = new Numbers(height * width * channels);
      parts.forEach((part, row) => x.set(part, row * width * channels));
    }
    return x;
  }

  function largestOf(windows, channels) {
    const y = new Numbers(windows.length / 9).fill(-Infinity);
    windows.forEach((value, i) => {
      const at = Math.floor(i / 9 / channels) * channels + (i % channels);
      y[at] = Math.max(y[at], value);
    });
    return y;
  }

  function embed(model, image) {
    const { tokenizer, prefix } = model;
    let x = norm(tokenizer.layers ? convolve(image, model) : patchify(image, model), tokenizer.norm);
    if (tokenizer.proj) x = linear(x, tokenizer.proj);
    x = sum(norm(norm(x, tokenizer.norm_after), model.patch_norm), model.position);
    const tokens = new Numbers(prefix.length + x.length);
    tokens.set(prefix);
    tokens.set(x, prefix.length);
    return tokens;
  }

  function* encode(model, tokens, places) {
    const { config, encoder } = model, isPost = config.norm_order === "post";
    const scaled = (x, { gamma }) => (gamma ? x.map((value, i) => value * gamma[i % gamma.length]) : x);
    let x = norm(tokens, encoder.norm_pre);
    for (const [number, block] of encoder.blocks.entries()) {
      const attention = [block.norm1, block.ls1, (y) => attend(y, model, number, places)];
      for (const [layer, scale, branch] of [attention, [block.norm2, block.ls2, (y) => mlp(y, block.mlp, config)]]) {
        x = sum(x, scaled(isPost ? norm(branch(x), layer) : branch(norm(x, layer)), scale));
        yield;
      }
    }
    return norm(x, encoder.norm);
  }

  function pool(x, { config, pool: layer, numPrefix }) {
    const width = config.embed_dim, kind = config.pool;
    if (kind === "token") return x.slice(0, (config.distill_token ? 2 : 1) * width);
    const patches = x.subarray(numPrefix * width), n = patches.length / width;
    if (kind === "map") return attentionPool(patches, layer, config);
    if (kind === "max") {
      const largest = (_, channel) => columnsOf(patches, width, channel, 1).reduce((a, b) => Math.max(a, b));
      return Numbers.from({ length: width }, largest);
    }
    const shares = kind === "sequence" ? softmax(linear(patches, layer.score), n) : new Numbers(n).fill(1 / n);
    const mean = multiply(shares, 1, transposed(patches, width), width, n);
    return kind === "token_mean" ? Numbers.of(...x.subarray(0, width), ...mean) : mean;
  }

  function attentionPool(patches, layer, config) {
    const width = config.embed_dim, n = patches.length / width, size = width / config.num_heads;
    const query = linear(layer.probe, layer.q), both = linear(patches, layer.kv), joined = new Numbers(width);
    for (let from = 0; from < width; from += size) {
      const keys = columnsOf(both, 2 * width, from, size), values = columnsOf(both, 2 * width, width + from, size);
      const scores = multiply(query.subarray(from, from + size), 1, keys, n, size);
      const shares = softmax(scores.map((score) => score / Math.sqrt(size)), n);
      joined.set(multiply(shares, 1, transposed(values, size), size, n), from);
    }
    const pooled = linear(joined, layer.proj);
    return sum(pooled, mlp(norm(pooled, layer.norm), layer.mlp, config));
  }

  // Features of a normalized image, which the head takes; without one of its patches if `removed` is its number. The
  // patch does not exist for the encoder. Stems that see neighboring patches get the mean color in its place too.
  function* features(model, image, removed = -1) {
    const { config, numPrefix } = model, width = config.embed_dim;
    const isMasked = removed >= 0 && ["conv", "cct", "shifted"].includes(config.stem);
    const tokens = embed(model, isMasked ? masked(image, model, removed) : image);
    const gone = removed < 0 ? -1 : numPrefix + removed;
    const places = [...Array(tokens.length / width).keys()].filter((place) => place !== gone);
    const kept = new Numbers(places.length * width);
    places.forEach((place, i) => kept.set(tokens.subarray(place * width, (place + 1) * width), i * width));
    return norm(pool(yield* encode(model, kept, places), model), model.fc_norm);
  }

  function classify({ config: { embed_dim: width }, head }, found) {
    if (head.kind !== "DistilledHead") return linear(found, head);
    const other = linear(found.subarray(width), head.teacher); // of the distillation token
    return linear(found.subarray(0, width), head.label).map((value, i) => (value + other[i]) / 2);
  }

  function* logits(model, image, removed) {
    return classify(model, yield* features(model, image, removed));
  }

  function masked(image, { grid: [, columns], edges: [down, across], config: { in_chans: channels } }, patch) {
    const shown = image.slice(), row = Math.floor(patch / columns), column = patch % columns, width = across[columns];
    for (let y = down[row]; y < down[row + 1]; y++) {
      shown.fill(0, (y * width + across[column]) * channels, (y * width + across[column + 1]) * channels);
    }
    return shown;
  }

  // By how much each logit falls without each patch, `[patch][class]`; yields the share that is done.
  function* occlusion(model, image) {
    const whole = yield* logits(model, image), count = model.grid[0] * model.grid[1], falls = [];
    for (let patch = 0; patch < count; patch++) {
      const without = yield* logits(model, image, patch);
      falls.push(whole.map((value, i) => value - without[i]));
      yield (patch + 1) / count;
    }
    return falls;
  }

  const normalize = (pixels, { scale, shift }) =>
    Numbers.from(pixels, (level, i) => level * scale[i % scale.length] + shift[i % scale.length]);

  // Calibrated probabilities: of one class, or of each label if there are thresholds.
  function probabilities(found, { temperature, thresholds }) {
    const scaled = found.map((value) => value / temperature);
    return thresholds ? scaled.map(sigmoid) : softmax(scaled, scaled.length);
  }

  // How unlike the training images an image is: the percentile of its score among validation images. The score is the
  // distance of its features to training images, or the energy of its logits.
  function unfamiliar({ familiarity: known }, found, logits, { thresholds }) {
    const { scores, percentiles, largest, points } = known;
    const score = points ? distance(found, known) : thresholds ? jointEnergy(logits) : energy(logits);
    const above = scores.findIndex((value) => value >= score);
    if (above <= 0) return above < 0 ? largest : percentiles[0];
    const share = (score - scores[above - 1]) / (scores[above] - scores[above - 1]);
    return percentiles[above - 1] + share * (percentiles[above] - percentiles[above - 1]);
  }

  // From features of length 1, multiplied by a matrix or shifted, to the nearest point, or to the one of a rank.
  function distance(found, { matrix, shift, points: { weight, rows, columns }, rank }) {
    const size = Math.sqrt(found.reduce((total, value) => total + value * value, 0));
    const unit = found.map((value) => value / Math.max(size, 1e-12));
    const from = matrix ? multiply(unit, 1, matrix, columns, columns) : sum(unit, shift);
    const distances = new Numbers(rows);
    for (let row = 0; row < rows; row++) {
      let square = 0;
      for (let c = 0; c < columns; c++) square += (weight[row * columns + c] - from[c]) ** 2;
      distances[row] = Math.sqrt(square);
    }
    return distances.sort()[rank - 1];
  }

  function energy(found) {
    const largest = Math.max(...found);
    return -largest - Math.log(found.reduce((total, value) => total + Math.exp(value - largest), 0));
  }

  const jointEnergy = (found) => found.reduce((total, value) => total + energy([0, value]), 0);

  // Run a generator in slices, between which the page can react; undefined if the result is no longer wanted.
  async function inSlices(steps, isWanted, showProgress = () => {}) {
    while (isWanted()) {
      const end = performance.now() + 30;
      while (performance.now() < end) {
        const step = steps.next();
        if (step.done) return step.value;
        if (step.value !== undefined) showProgress(step.value);
      }
      await new Promise((resolve) => setTimeout(resolve));
    }
    return undefined;
  }

  // The model as `app.js` uses it; see `runtime.js` for another one.
  async function open(data) {
    const model = load(data), imageOf = (pixels) => normalize(pixels, data.normalize);
    return {
      grid: model.grid, edges: model.edges, parts: "patches", value: "logit", removed: "without the patch",
      async classify(pixels, isWanted) {
        const found = await inSlices(features(model, imageOf(pixels)), isWanted);
        if (!found) return undefined;
        const values = classify(model, found), known = model.familiarity;
        return {
          values: probabilities(values, data),
          unfamiliar: known ? unfamiliar(model, found, values, data) : undefined,
        };
      },
      explain: (pixels, isWanted, report) => inSlices(occlusion(model, imageOf(pixels)), isWanted, report),
    };
  }

  return { open, load, normalize, features, classify, logits, occlusion, probabilities, unfamiliar, inSlices };
})();
