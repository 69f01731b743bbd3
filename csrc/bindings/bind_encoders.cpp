// The text encoder and the image tower alone: components.TextEncoder, components.ClipVision.
#include <pybind11/stl.h>

#include <map>

#include "arrays.h"
#include "bind.h"
#include "io/weight_store.h"
#include "model/codecs/clip_vision.h"
#include "model/codecs/text_encoder.h"

namespace wam::bindings {
namespace {

using Taps = std::map<std::string, py::array_t<float>>;

Tap collect(Taps& taps) {
  return [&taps](const std::string& label, const float* data, int64_t rows, int64_t cols, int64_t stride) {
    py::array_t<float> copy = empty({rows, cols});
    for (int64_t r = 0; r < rows; ++r) std::copy_n(data + r * stride, cols, copy.mutable_data(r, 0));
    taps[label] = copy;
  };
}

// Opens a component whose tensors have no prefix; every tensor of the file must be accounted for.
template <typename Component, typename Config>
std::unique_ptr<Component> open(const std::string& config, const std::string& weights, const std::string& device,
                                std::optional<int> threads) {
  const json::Value document = json::parse(config, "config");
  const Config parsed = Config::parse({document, "config"});
  WeightStore store = WeightStore::open(weights);
  auto out = std::make_unique<Component>(
      parsed, [&](const std::string& name, const Shape& shape) { return store.f32(name, shape); },
      make_backend(device, threads));
  for (const KeySpec& key : Component::keys(parsed))
    if (!key.used && store.contains(key.name)) store.ignore(key.name);
  store.check_all_used();
  return out;
}

template <typename Component, typename Config>
std::vector<std::tuple<std::string, Shape, bool>> keys(const std::string& config) {
  const json::Value document = json::parse(config, "config");
  std::vector<std::tuple<std::string, Shape, bool>> out;
  for (const KeySpec& k : Component::keys(Config::parse({document, "config"})))
    out.emplace_back(k.name, k.shape, k.used);
  return out;
}

}  // namespace

void bind_encoders(py::module_& m) {
  const char* const opening = "Opens the part from its JSON config and a safetensors file with the upstream names.";
  py::class_<TextEncoder>(m, "TextEncoder", "The umT5-form text encoder of a checkpoint by itself.")
      .def(py::init(&open<TextEncoder, TextEncoderConfig>), py::arg("config"), py::arg("weights"),
           py::arg("device") = "cpu", py::arg("threads") = py::none(), opening)
      .def(
          "encode",
          [](const TextEncoder& e, const std::vector<int64_t>& ids, int64_t text_len, bool with_taps) {
            py::array_t<float> out = empty({text_len, e.config().dim});
            Taps taps;
            const Tap tap = collect(taps);
            e.encode(ids, text_len, out.mutable_data(), with_taps ? &tap : nullptr);
            return py::make_tuple(out, taps);
          },
          py::arg("ids"), py::arg("text_len"), py::arg("taps") = false,
          "Context rows float32 [text_len, dim] of unpadded ids, zero past the last, and intermediate values by name.")
      .def_static("keys", &keys<TextEncoder, TextEncoderConfig>, py::arg("config"),
                  "(name, shape, used) of each tensor.")
      .def_static("relative_bucket", &relative_bucket, py::arg("distance"), py::arg("buckets") = 32,
                  "Bucket of the distance key - query.");
  py::class_<ClipVision>(m, "ClipVision", "The CLIP image tower of a checkpoint by itself.")
      .def(py::init(&open<ClipVision, ClipConfig>), py::arg("config"), py::arg("weights"), py::arg("device") = "cpu",
           py::arg("threads") = py::none(), opening)
      .def(
          "encode",
          [](const ClipVision& c, const FloatArray& rgb, bool with_taps) {
            if (rgb.ndim() != 3 || rgb.shape(2) != 3)
              throw ShapeError("ClipVision.encode: wanted [height, width, 3], got " + shape_of(rgb));
            py::array_t<float> out = empty({c.config().tokens(), c.config().vision_dim});
            Taps taps;
            const Tap tap = collect(taps);
            c.encode({rgb.data(), rgb.shape(0), rgb.shape(1)}, out.mutable_data(), with_taps ? &tap : nullptr);
            return py::make_tuple(out, taps);
          },
          py::arg("rgb"), py::arg("taps") = false,
          "Image tokens float32 [tokens, width] of a picture [height, width, 3] in [-1, 1], and intermediate values.")
      .def_static("keys", &keys<ClipVision, ClipConfig>, py::arg("config"), "(name, shape, used) of each tensor.");
}

}  // namespace wam::bindings
