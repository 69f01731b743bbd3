#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/precision.h"
#include "wamcore/kernels/gemm.h"
#include "wamcore/tensor.h"

namespace wam {

/// How a weight is used, which decides how a backend lays it out.
enum class WeightUse : uint8_t {
  matrix,             // [out, in], a torch Linear (or a convolution flattened to it)
  layer_matrix,       // the same, of a layer's large product: what a backend quantises if it quantises
  matrix_transposed,  // [in, out], y = x W
  conv,               // [out, in, rows, cols] or [out, in, time, rows, cols]
  vector,             // read as it is
};
struct WeightSpec {
  std::string name;  // the checkpoint's key
  Shape shape;       // as in the checkpoint
  WeightUse use = WeightUse::vector;
  int after = -1;  // id of the weight whose rows come before this one's; -1: none
};

/// Every weight that the plans of one model use, by the checkpoint's key. Ids are stable, names unique.
class WeightTable {
 public:
  int add(const std::string& name, Shape shape, WeightUse use);  // the same name again gives the same id
  /// Says that one product serves these matrices (or is given these biases): a backend that has such a product lays
  /// their rows out one after another. Ids below 0 are left out.
  void join(std::initializer_list<int> ids);
  const std::vector<WeightSpec>& specs() const { return specs_; }

 private:
  std::vector<WeightSpec> specs_;
  std::unordered_map<std::string, int> ids_;
};

/// Gives a tensor as float32 of exactly that shape, or throws WeightError.
using WeightSource = std::function<Tensor(const std::string& name, const Shape& shape)>;

/// The weights of a model as the programs of a backend read them.
class ProgramWeights {
 public:
  virtual ~ProgramWeights() = default;
  virtual Precision precision() const = 0;  // what runs; never automatic
};

/// Weights as the CPU kernels read them: matrices and convolutions in panels, vectors as they are. Matrices that are
/// exact in bfloat16, as those of a bfloat16 checkpoint, stay so: half the memory, and half the reading in every pass.
/// With Precision::int8 the matrices of layers are rounded to bytes, with Precision::bfloat16 to that.
class PackedWeights final : public ProgramWeights {
 public:
  PackedWeights(const WeightTable& table, const WeightSource& source, Precision precision = Precision::float32);
  Precision precision() const override { return precision_; }
  kernels::Panels panels(int id) const { return panels_[static_cast<size_t>(id)]; }  // of a matrix
  const float* data(int id) const { return id < 0 ? nullptr : tensors_[static_cast<size_t>(id)].data<float>(); }
  /// Of a convolution: bit t is set when time tap t has a weight other than zero.
  uint32_t live_taps(int id) const { return live_taps_[static_cast<size_t>(id)]; }

 private:
  Precision precision_;
  std::vector<Tensor> tensors_;
  std::vector<kernels::Panels> panels_;  // empty ones for what is no matrix
  std::vector<uint32_t> live_taps_;
};

}  // namespace wam
