#include "wamcore/tensor.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr std::align_val_t kAlignment{64};

struct DTypeInfo {
  const char* name;
  size_t size;
};
constexpr DTypeInfo kDTypes[] = {{"f64", 8}, {"f32", 4}, {"f16", 2}, {"bf16", 2}, {"i64", 8},
                                 {"i32", 4}, {"i16", 2}, {"i8", 1},  {"u8", 1},   {"bool", 1}};

const DTypeInfo& info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  if (index >= std::size(kDTypes)) throw ShapeError("dtype: no element type has number " + std::to_string(index));
  return kDTypes[index];
}

}  // namespace

size_t dtype_size(DType dtype) { return info(dtype).size; }
const char* dtype_name(DType dtype) { return info(dtype).name; }

std::string shape_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

int64_t numel(const Shape& shape) {
  // zeros count as one while multiplying, so that [0, 2^62, 2^62] is as wrong as [1, 2^62, 2^62]
  int64_t extent = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) throw ShapeError("numel: shape " + shape_string(shape) + " has a negative size");
    empty |= size == 0;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent))
      throw ShapeError("numel: shape " + shape_string(shape) + " has more elements than 64 bits can count");
  }
  return empty ? 0 : extent;
}

size_t nbytes(const Shape& shape, DType dtype) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(numel(shape), static_cast<int64_t>(dtype_size(dtype)), &bytes))
    throw ShapeError("nbytes: shape " + shape_string(shape) + " of " + dtype_name(dtype) +
                     " has more bytes than 63 bits can count");
  return static_cast<size_t>(bytes);
}

void check_dtype(DType stored, DType wanted) {
  if (stored == wanted || (stored == DType::boolean && wanted == DType::u8)) return;
  throw ShapeError(std::string("tensor: wanted elements of ") + dtype_name(wanted) + ", got " + dtype_name(stored));
}

void TensorView::check_aligned(size_t alignment) const {
  if (reinterpret_cast<uintptr_t>(data) % alignment == 0) return;
  throw ShapeError(std::string("tensor: the data of this ") + dtype_name(dtype) + " view of " + shape_string(shape) +
                   " is not aligned to its element size; copy it");
}

void Tensor::Free::operator()(std::byte* p) const noexcept { ::operator delete[](p, kAlignment); }

Tensor Tensor::uninitialized(Shape shape, DType dtype) {
  Tensor tensor;
  const size_t bytes = wam::nbytes(shape, dtype);
  tensor.memory_.reset(static_cast<std::byte*>(::operator new[](std::max<size_t>(bytes, 1), kAlignment)));
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  return tensor;
}

Tensor::Tensor(Shape shape, DType dtype) : Tensor(uninitialized(std::move(shape), dtype)) {
  std::memset(memory_.get(), 0, nbytes());
}

int64_t Tensor::dim(int i) const {
  const int rank = static_cast<int>(shape_.size()), index = i < 0 ? i + rank : i;
  if (index < 0 || index >= rank)
    throw ShapeError("dim: no axis " + std::to_string(i) + " in shape " + shape_string(shape_));
  return shape_[index];
}

Tensor Tensor::clone() const {
  if (!*this) return {};
  Tensor copy = uninitialized(shape_, dtype_);
  std::memcpy(copy.raw(), raw(), nbytes());
  return copy;
}

}  // namespace wam
