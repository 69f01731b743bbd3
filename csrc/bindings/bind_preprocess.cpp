// What happens before and after the networks: components.ImagePipeline, Normalizer, WordTokenizer, format_prompt.
#include <pybind11/stl.h>

#include "arrays.h"
#include "bind.h"
#include "session/image_pipeline.h"
#include "session/normalizer.h"
#include "session/prompt.h"
#include "session/tokenizer.h"

namespace wam::bindings {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;

py::tuple run_pipeline(ImagePipeline& pipeline, const Observation& obs) {
  const int64_t frames = pipeline.check(obs);
  py::array_t<float> out = empty({frames, pipeline.height(), pipeline.width(), 3});
  pipeline.run(obs, out.mutable_data());
  const py::array_t<uint8_t> composed(
      {frames, int64_t{pipeline.composed_height()}, int64_t{pipeline.composed_width()}, int64_t{3}},
      pipeline.composed().data());
  return py::make_tuple(out, composed);
}

// A copy whose rows have the normalizer's width.
DoubleArray rows_of(const Normalizer& n, const DoubleArray& values, const char* what) {
  if (values.ndim() != 2 || values.shape(1) != n.dim())
    throw ShapeError(std::string(what) + ": wanted [rows, " + std::to_string(n.dim()) + "], got " + shape_of(values));
  DoubleArray out({values.shape(0), values.shape(1)});
  std::copy_n(values.data(), values.size(), out.mutable_data());
  return out;
}

Normalizer make_normalizer(const std::string& embodiment, const std::string& kind) {
  const Embodiment e = Embodiment::read(embodiment);
  if (kind != "state" && kind != "action")
    throw InputError("Normalizer: wanted kind 'state' or 'action', got '" + kind + "'");
  return Normalizer(kind == "state" ? e.state : e.action);
}

DoubleArray absolute_actions(const std::string& embodiment, const DoubleArray& actions, const DoubleArray& state) {
  const Embodiment e = Embodiment::read(embodiment);
  const Normalizer n(e.action);
  DoubleArray out = rows_of(n, actions, "absolute_actions");
  if (state.ndim() != 1 || state.size() != e.state_dim())
    throw ShapeError("absolute_actions: wanted a state of [" + std::to_string(e.state_dim()) + "], got " +
                     shape_of(state));
  n.denormalize(out.mutable_data(), static_cast<int>(out.shape(0)));
  add_relative_state(e, state.data(), out.mutable_data(), static_cast<int>(out.shape(0)));
  return out;
}

}  // namespace

void bind_preprocess(py::module_& m) {
  py::class_<ImagePipeline>(m, "ImagePipeline",
                            "Camera frames to the picture the model sees.\n\n"
                            "Args:\n"
                            "    embodiment: path of an embodiment.json.\n"
                            "    height, width: final size, pixels; 0 for as composed.\n\n"
                            "Raises:\n"
                            "    ConfigError: the file is wrong.")
      .def(py::init([](const std::string& path, int height, int width) {
             return ImagePipeline(Embodiment::read(path), height, width);
           }),
           py::arg("embodiment"), py::arg("height") = 0, py::arg("width") = 0)
      .def_property_readonly("height", &ImagePipeline::height, "Pixels.")
      .def_property_readonly("width", &ImagePipeline::width, "Pixels.")
      .def("run", &run_pipeline, py::arg("observation"),
           "float32 [frames, height, width, 3] in [-1, 1], and the composed uint8 pictures before scaling.\n\n"
           "Raises:\n"
           "    InputError, ShapeError: a camera is unknown, missing or of another size.");
  py::class_<Normalizer>(m, "Normalizer",
                         "Scaling between robot units and the model's range.\n\n"
                         "Args:\n"
                         "    embodiment: path of an embodiment.json.\n"
                         "    kind: \"state\" or \"action\".")
      .def(py::init(&make_normalizer), py::arg("embodiment"), py::arg("kind"))
      .def(
          "normalize",
          [](const Normalizer& n, const DoubleArray& values) {
            DoubleArray out = rows_of(n, values, "Normalizer.normalize");
            for (py::ssize_t i = 0; i < out.shape(0); ++i) n.normalize(out.mutable_data(i, 0));
            return out;
          },
          py::arg("values"), "float64 [rows, dim] in the model's range.")
      .def(
          "denormalize",
          [](const Normalizer& n, const DoubleArray& values) {
            DoubleArray out = rows_of(n, values, "Normalizer.denormalize");
            n.denormalize(out.mutable_data(), static_cast<int>(out.shape(0)));
            return out;
          },
          py::arg("values"),
          "float64 [rows, dim] in robot units, row i with the statistics of step i where there are such.");
  py::class_<WordTokenizer>(m, "WordTokenizer",
                            "Word-level tokenizer.\n\n"
                            "Args:\n"
                            "    path: tokenizer.json.\n"
                            "    vocab_size: ids must be below it.\n\n"
                            "Raises:\n"
                            "    ConfigError: the file is wrong.")
      .def(py::init<const std::string&, int64_t>(), py::arg("path"), py::arg("vocab_size"))
      .def("encode", &WordTokenizer::encode, py::arg("text"), "Ids without padding.");
  m.def(
      "absolute_actions", &absolute_actions, py::arg("embodiment"), py::arg("actions"), py::arg("state"),
      "Model output [rows, dim] to absolute targets float64: denormalised, relative groups anchored at the raw state.");
  m.def("format_prompt", &format_prompt, py::arg("template"), py::arg("instruction"),
        "The text that the tokenizer gets; every {} of the template is the instruction.");
  m.attr("NEGATIVE_PROMPT") = kNegativePrompt;
}

}  // namespace wam::bindings
