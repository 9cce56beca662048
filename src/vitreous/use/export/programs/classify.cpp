// g++ -std=c++17 classify.cpp -o classify $(pkg-config --cflags --libs opencv4) -lonnxruntime
// ./classify photo.jpg
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

int main(int, char** arguments) {
  const std::vector<std::string> classes CLASSES;
?labels   const std::vector<double> thresholds THRESHOLDS;
  cv::Mat photo = cv::imread(arguments[1], cv::IMREAD_COLOR);  // upright; put a transparent photo on white before
?color   cv::cvtColor(photo, photo, cv::COLOR_BGR2RGB);
?gray   cv::cvtColor(photo, photo, cv::COLOR_BGR2GRAY);
  Ort::Env environment;
  Ort::Session session(environment, ORT_TSTR(PATH), Ort::SessionOptions{});
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::vector<int64_t> shape{1, photo.rows, photo.cols, CHANNELS};
  const auto photos = Ort::Value::CreateTensor<uint8_t>(
      memory, photo.data, photo.total() * CHANNELS, shape.data(), shape.size());
  const std::vector<const char*> inputs{"photos"}, outputs OUTPUTS;
  const auto found = session.Run({}, inputs.data(), &photos, 1, outputs.data(), outputs.size());
  const float* probabilities = found[0].GetTensorData<float>();
  std::vector<size_t> order(classes.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return probabilities[a] > probabilities[b]; });
?one   order.resize(std::min<size_t>(order.size(), 5));
  for (const size_t number : order) {
?labels     if (probabilities[number] < thresholds[number]) continue;
    std::printf("%s %.1f%%\n", classes[number].c_str(), 100 * probabilities[number]);
  }
?unfamiliar   if (*found[1].GetTensorData<double>() >= FLAGGED) std::puts(UNLIKE);
}
