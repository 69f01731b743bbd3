#include "backend/plan.h"

#include "wamcore/error.h"

namespace wam {

BufferId Plan::buffer(const std::string& id) const {
  for (size_t i = 0; i < buffers.size(); ++i)
    if (buffers[i].name == id) return static_cast<BufferId>(i);
  throw Error("Plan::buffer: plan '" + name + "' has no buffer '" + id + "'");
}

}  // namespace wam
