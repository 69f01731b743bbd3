#include "backend/cuda/time_tables.h"

namespace wam::cuda {
namespace {

// Input and output of the kinds of node that time goes through; buffer kNone for the others.
struct Ends {
  BufferId in = kNone;
  Slice out;
};
Ends ends(const Node& any) {
  if (const auto* n = std::get_if<SinusoidNode>(&any)) return {n->t, n->out};
  if (const auto* n = std::get_if<LinearNode>(&any)) return {n->in.buffer, n->out};
  if (const auto* n = std::get_if<ActivationNode>(&any)) return {n->in.buffer, n->out};
  return {};
}

bool whole(const Plan& plan, const Slice& s) {
  const BufferSpec& spec = plan.buffers[static_cast<size_t>(s.buffer)];
  return s.row == 0 && s.col == 0 && s.rows == spec.rows && s.cols == spec.cols && !spec.external;
}

}  // namespace

std::vector<bool> time_nodes(const Plan& plan, BufferId timesteps) {
  std::vector<bool> of_time(plan.buffers.size(), false), chosen(plan.nodes.size(), false);
  if (timesteps == kNone) return chosen;
  of_time[static_cast<size_t>(timesteps)] = true;
  // Nodes come in the order in which they are run, so one walk sees every input before it is used.
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    const Ends e = ends(plan.nodes[i]);
    if (e.in == kNone || !of_time[static_cast<size_t>(e.in)] || !whole(plan, e.out)) continue;
    chosen[i] = true;
    of_time[static_cast<size_t>(e.out.buffer)] = true;
  }
  return chosen;
}

BufferId written(const Node& node) { return ends(node).out.buffer; }

const std::vector<std::byte*>& TimeTables::arrays(const CudaProgram& program, BufferId timesteps,
                                                  const std::vector<float>& values) {
  const Plan& plan = program.plan();
  const std::vector<bool> chosen = time_nodes(plan, timesteps);
  std::string what;  // labels name weights, so equal ones of one model compute the same
  std::vector<size_t> offsets;
  constexpr size_t kAlign = 256;
  size_t bytes = (values.size() * sizeof(float) + kAlign - 1) / kAlign * kAlign;  // the timesteps lie first
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    if (!chosen[i]) continue;
    const Slice out = ends(plan.nodes[i]).out;
    what += plan.labels[i] + '\n';
    offsets.push_back(bytes);
    bytes += (static_cast<size_t>(out.rows * out.cols) * sizeof(float) + kAlign - 1) / kAlign * kAlign;
  }
  const auto [it, fresh] = tables_.try_emplace({what, values});
  Table& table = it->second;
  if (!fresh) return table.arrays;
  table.block = Block(device_, bytes);
  for (const size_t offset : offsets) table.arrays.push_back(table.block.as<>(offset));
  device_.upload(table.block.as<>(), values.data(), values.size() * sizeof(float));

  const Bindings none;
  Site site{.moved = std::vector<std::byte*>(plan.buffers.size())};
  site.moved[static_cast<size_t>(timesteps)] = table.block.as<>();
  Lowering lowering(program, none, &site);
  for (size_t i = 0, at = 0; i < plan.nodes.size(); ++i) {
    if (!chosen[i]) continue;
    site.moved[static_cast<size_t>(written(plan.nodes[i]))] = table.arrays[at++];
    std::visit([&](const auto& n) { lowering.node(n, plan.labels[i]); }, plan.nodes[i]);
  }
  for (const Step& step : lowering.take()) device_.launch(step.call);
  return table.arrays;
}

size_t TimeTables::bytes() const {
  size_t sum = 0;
  for (const auto& [key, table] : tables_) sum += table.block.bytes();
  return sum;
}

}  // namespace wam::cuda
