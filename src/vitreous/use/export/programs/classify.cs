// dotnet add package Microsoft.ML.OnnxRuntime; dotnet add package SixLabors.ImageSharp
// dotnet run photo.jpg
using System.Text.Json;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;
using SixLabors.ImageSharp;
using SixLabors.ImageSharp.PixelFormats;
using SixLabors.ImageSharp.Processing;

using var session = new InferenceSession(PATH);
var about = session.ModelMetadata.CustomMetadataMap;
var classes = JsonSerializer.Deserialize<string[]>(about["classes"])!;
using var photo = Image.Load<Rgba32>(args[0]);
photo.Mutate(x => x.AutoOrient().BackgroundColor(Color.White));
var photos = new DenseTensor<byte>(new[] { 1, photo.Height, photo.Width, CHANNELS });
for (var y = 0; y < photo.Height; y++)
{
    for (var x = 0; x < photo.Width; x++)
    {
        var pixel = photo[x, y];
?color         (photos[0, y, x, 0], photos[0, y, x, 1], photos[0, y, x, 2]) = (pixel.R, pixel.G, pixel.B);
?gray         photos[0, y, x, 0] = (byte)((19595 * pixel.R + 38470 * pixel.G + 7471 * pixel.B + 32768) >> 16);
    }
}
using var outputs = session.Run(new[] { NamedOnnxValue.CreateFromTensor("photos", photos) });
var probabilities = outputs.Single(output => output.Name == "probabilities").AsTensor<float>().ToArray();
var order = Enumerable.Range(0, classes.Length).OrderByDescending(number => probabilities[number]);
?labels var thresholds = JsonSerializer.Deserialize<double[]>(about["thresholds"])!;
?one foreach (var number in order.Take(5))
?labels foreach (var number in order.Where(number => probabilities[number] >= thresholds[number]))
    Console.WriteLine($"{classes[number]} {100 * probabilities[number]:F1}%");
?unfamiliar if (outputs.Single(output => output.Name == "unfamiliar").AsTensor<double>().First() >= FLAGGED)
?unfamiliar     Console.WriteLine(UNLIKE);
