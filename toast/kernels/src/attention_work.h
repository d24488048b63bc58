// Attention of many heads on raw memory, divided among the threads.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <vector>

#include "kernels.h"

namespace toast {

// Queries of one call of the kernel, for `group` heads that share a key/value head.
size_t attention_tile(size_t group, size_t queries, size_t keys);

// Attention of `texts` texts with `heads` key/value heads each.
struct AttentionBatch {
  Attention first;  // of the first head of the first text, with all its queries
  size_t texts, heads;
  struct Step {
    int64_t text, head;
  } q, k, v, y, m, sinks;  // elements from one text, or key/value head, to the next
};

// All of them, with nothing to do between them.
void attend(const std::vector<AttentionBatch>& all);

}  // namespace toast
