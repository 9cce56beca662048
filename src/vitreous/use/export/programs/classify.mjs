// npm install onnxruntime-node sharp
// node classify.mjs photo.jpg
import ort from "onnxruntime-node";
import sharp from "sharp";

const classes = CLASSES;
?labels const thresholds = THRESHOLDS;
const photo = sharp(process.argv[2], { ignoreIcc: true }).rotate().flatten({ background: "white" });
const { data, info } = await photo.toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
?color const pixels = data;
?gray const gray = (i) => (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16;
?gray const pixels = Uint8Array.from({ length: data.length / 3 }, (_, i) => gray(3 * i));
const session = await ort.InferenceSession.create(PATH);
const photos = new ort.Tensor("uint8", pixels, [1, info.height, info.width, CHANNELS]);
const outputs = await session.run({ photos });
const probabilities = [...outputs.probabilities.data];
const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
?one for (const number of order.slice(0, 5)) {
?labels for (const number of order.filter((number) => probabilities[number] >= thresholds[number])) {
  console.log(`${classes[number]} ${(100 * probabilities[number]).toFixed(1)}%`);
}
?unfamiliar if (outputs.unfamiliar.data[0] >= FLAGGED) console.log(UNLIKE);
