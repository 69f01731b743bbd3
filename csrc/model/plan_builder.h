#pragma once

#include <string>
#include <utility>

#include "model/planner.h"

namespace wam {

using kernels::Activation;

/// Collects the buffers, weights and nodes of one plan.
class Builder {
 public:
  Builder(const Planner& planner, WeightTable& weights, std::string name) : planner_(planner), weights_(weights) {
    plan_.name = std::move(name);
  }
  Plan take() { return std::move(plan_); }

  Slice buffer(const std::string& name, int64_t rows, int64_t cols, bool external = false) {
    plan_.buffers.push_back({name, rows, cols, external});
    return {static_cast<BufferId>(plan_.buffers.size()) - 1, 0, rows, 0, cols};
  }
  WeightId weight(const std::string& name, Shape shape, WeightUse use = WeightUse::vector) {
    return weights_.add(planner_.key(name), std::move(shape), use);
  }
  WeightId matrix(const std::string& name, int64_t out, int64_t in) {
    return weight(name, {out, in}, WeightUse::matrix);
  }
  WeightId layer_matrix(const std::string& name, int64_t out, int64_t in) {
    return weight(name, {out, in}, WeightUse::layer_matrix);
  }
  void join(std::initializer_list<WeightId> ids) { weights_.join(ids); }
  void emit(const std::string& label, Node node) {
    plan_.nodes.push_back(std::move(node));
    plan_.labels.push_back(label);
  }
  void linear(const std::string& key, Slice in, Slice out, Activation activation = Activation::none) {
    emit(key, LinearNode{in, out, matrix(key + ".weight", out.cols, in.cols), weight(key + ".bias", {out.cols}),
                         activation});
  }
  // A layer of a category-specific MLP: weights [1, in, out], one category.
  void category(const std::string& key, Slice in, Slice out, Activation activation = Activation::none) {
    emit(key, LinearNode{in, out, weight(key + ".W", {1, in.cols, out.cols}, WeightUse::matrix_transposed),
                         weight(key + ".b", {1, out.cols}), activation});
  }
  Plan& plan() { return plan_; }

 private:
  const Planner& planner_;
  WeightTable& weights_;
  Plan plan_;
};

/// Parts of a slice.
inline Slice rows_of(Slice s, int64_t begin, int64_t rows) {
  s.row += begin;
  s.rows = rows;
  return s;
}
inline Slice cols_of(Slice s, int64_t begin, int64_t cols) {
  s.col += begin;
  s.cols = cols;
  return s;
}

/// What the keys of a layer start with.
inline std::string block_key(const ExpertSpec& e, int64_t layer) {
  return e.prefix + "blocks." + std::to_string(layer) + ".";
}

}  // namespace wam
