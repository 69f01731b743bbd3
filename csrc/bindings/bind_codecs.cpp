// The video codec by itself, for whoever compares it with PyTorch: components.Vae.
#include <pybind11/stl.h>

#include "arrays.h"
#include "bind.h"
#include "model/codecs/open.h"

namespace wam::bindings {
namespace {

using Floats = FloatArray;

void want(const py::array& a, py::ssize_t axes, const char* what) {
  if (a.ndim() != axes) throw ShapeError(std::string(what) + ", got " + shape_of(a));
}

// A config is a dict or its JSON text.
std::string json_text(const py::object& config) {
  if (py::isinstance<py::str>(config)) return config.cast<std::string>();
  return py::module_::import("json").attr("dumps")(config).cast<std::string>();
}

ComponentFiles files_of(const py::object& config, std::vector<std::string> weights, std::string device,
                        std::optional<int> threads) {
  return {json_text(config), std::move(weights), std::move(device), threads};
}

py::list key_list(const std::vector<KeySpec>& keys) {
  py::list out;
  for (const KeySpec& k : keys) out.append(py::make_tuple(k.name, k.shape, k.used));
  return out;
}

// [channels, frames, height, width], as the published code has it.
Floats planes(const Frames& value) {
  const FrameShape& s = value.shape();
  Floats out({s.channels, int64_t{value.count}, s.height, s.width});
  auto o = out.mutable_unchecked<4>();
  for (int t = 0; t < value.count; ++t)
    for (int64_t y = 0; y < s.height; ++y)
      for (int64_t x = 0; x < s.width; ++x)
        for (int64_t c = 0; c < s.channels; ++c) o(c, t, y, x) = value[t].pixels()[y * s.row() + x * s.channels + c];
  return out;
}

VaeTap tap_into(const std::optional<py::dict>& taps) {
  if (!taps) return nullptr;
  return [taps = *taps](const std::string& name, const Frames& value) {
    const py::gil_scoped_acquire gil;
    taps[py::str(name)] = planes(value);
  };
}

Floats encode(const Vae& vae, const Floats& video, VaeStream* stream, const std::optional<py::dict>& taps) {
  want(video, 4, "Vae.encode: wanted video [frames, height, width, 3]");
  if (video.shape(3) != 3) throw ShapeError("Vae.encode: wanted 3 colours, got " + shape_of(video));
  VaeStream own(vae);
  VaeStream& s = stream ? *stream : own;
  const int64_t stride = vae.spatial_stride();
  Floats out(
      {vae.config().z_dim, vae.latent_frames(video.shape(0), s), video.shape(1) / stride, video.shape(2) / stride});
  float* latents = out.mutable_data();
  const VaeTap tap = tap_into(taps);
  const py::gil_scoped_release nogil;
  vae.encode({video.data(), video.shape(0), video.shape(1), video.shape(2)}, latents, s, tap);
  return out;
}

Floats decode(const Vae& vae, const Floats& latents, VaeStream* stream, bool clamp,
              const std::optional<py::dict>& taps) {
  want(latents, 4, "Vae.decode: wanted latents [channels, frames, height, width]");
  if (latents.shape(0) != vae.config().z_dim)
    throw ShapeError("Vae.decode: wanted " + std::to_string(vae.config().z_dim) + " channels, got " +
                     shape_of(latents));
  VaeStream own(vae);
  VaeStream& s = stream ? *stream : own;
  const int64_t stride = vae.spatial_stride();
  Floats out({vae.pixel_frames(latents.shape(1), s), latents.shape(2) * stride, latents.shape(3) * stride, int64_t{3}});
  float* video = out.mutable_data();
  const VaeTap tap = tap_into(taps);
  const py::gil_scoped_release nogil;
  vae.decode({latents.data(), latents.shape(1), latents.shape(2), latents.shape(3)}, video, s, clamp, tap);
  return out;
}

void bind_vae(py::module_& m) {
  py::class_<VaeStream>(m, "VaeStream",
                        "What a codec remembers of one video between calls.\n\nArgs:\n    vae: the Vae.")
      .def(py::init<const Vae&>(), py::arg("vae"))
      .def("reset", &VaeStream::reset, "The next frame starts a video.")
      .def_property_readonly("encoded", &VaeStream::encoded, "Latent frames encoded since the reset.")
      .def_property_readonly("decoded", &VaeStream::decoded, "Latent frames decoded since the reset.")
      .def_property_readonly("bytes", &VaeStream::bytes, "Memory held, bytes.");

  py::class_<Vae>(
      m, "Vae",
      "The causal video codec of Wan 2.1 and 2.2.\n\n"
      "Args:\n"
      "    config: dict or JSON text.\n"
      "    weights: safetensors files that together hold the codec; without decoder tensors it only encodes.\n"
      "    device: backend name.\n"
      "    threads: CPU threads; None: one for each CPU that the process may use.\n\n"
      "Raises:\n"
      "    ConfigError, WeightError: config or weights are wrong or do not fit each other.")
      .def(py::init([](const py::object& config, std::vector<std::string> weights, std::string device,
                       std::optional<int> threads) {
             return open_vae(files_of(config, std::move(weights), std::move(device), threads));
           }),
           py::arg("config"), py::arg("weights"), py::arg("device") = "cpu", py::arg("threads") = 1)
      .def_static(
          "keys", [](const py::object& config) { return key_list(vae_keys(json_text(config))); }, py::arg("config"),
          "(name, shape, used) of every tensor of a checkpoint.")
      .def_property_readonly("temporal_stride", &Vae::temporal_stride)
      .def_property_readonly("spatial_stride", &Vae::spatial_stride)
      .def("encode", &encode, py::arg("video"), py::arg("stream") = nullptr, py::arg("taps") = std::nullopt,
           "Encode the next frames of a video; frames that fill no group are dropped.\n\n"
           "Args:\n"
           "    video: float32 [frames, height, width, 3] in [-1, 1].\n"
           "    stream: VaeStream to continue; None starts afresh.\n"
           "    taps: dict that receives every layer's output, float32 [channels, frames, height, width].\n\n"
           "Returns: float32 [z_dim, latent frames, height / spatial_stride, width / spatial_stride].\n\n"
           "Raises:\n"
           "    ShapeError: the video's shape does not fit the codec or the stream.")
      .def("decode", &decode, py::arg("latents"), py::arg("stream") = nullptr, py::arg("clamp") = true,
           py::arg("taps") = std::nullopt,
           "Decode the next latent frames of a video.\n\n"
           "Args:\n"
           "    latents: float32 [z_dim, frames, height, width], normalised.\n"
           "    stream: VaeStream to continue; None starts afresh.\n"
           "    clamp: limit the pixels to [-1, 1].\n"
           "    taps: as in encode.\n\n"
           "Returns: float32 [frames, height, width, 3].\n\n"
           "Raises:\n"
           "    ShapeError: the shape does not fit the codec or the stream.\n"
           "    WeightError: the codec was opened without its decoder.");
}

}  // namespace

void bind_codecs(py::module_& m) { bind_vae(m); }

}  // namespace wam::bindings
