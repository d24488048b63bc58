// Which row of a layer stands where in the cache. The arithmetic is in rope.cpp and attention.cpp.
#include "cache_work.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "attention_work.h"
#include "threads.h"

namespace toast {
namespace {

struct Place {
  size_t text, position;
};

// f(the rows from `first` to `stop`, of `places`) for all rows of n elements, in tasks.
template <class F>
void each_place(const RaggedBatch& batch, size_t n, F f) {
  std::vector<Place> places;
  for (size_t i = 0; i < batch.segments.size(); i++)
    for (int t = 0; t < batch.segments[i].length; t++) places.push_back({i, (size_t)(batch.segments[i].offset + t)});
  each_rows(places.size(), n, [&](size_t first, size_t count) { f(first, first + count, places); });
}

// x[D] to `at`
void store(const char* x, Type type, const KvBuffer& to, char* at) {
  if (to.type == type)
    std::memcpy(at, x, to.D * size_of(type));
  else
    kernels().from_f32((const float*)x, at, to.type, to.D);
}

// q -> a.rotated
void rotate_queries(const CacheAttention& a, const RaggedBatch& batch, size_t D) {
  size_t head = D * size_of(a.type), row = a.heads * head;
  each_place(batch, a.heads * D, [&](size_t first, size_t stop, const std::vector<Place>& places) {
    Rotation rotation(a.rope);
    for (size_t t = first; t < stop; t++) {
      rotation.set_position((float)places[t].position);
      for (int h = 0; h < a.heads; h++)
        rotation.rotate(a.q + t * row + h * head, a.rotated + t * row + h * head, a.type, D);
    }
  });
}

// Attention of one text's new rows.
AttentionBatch attention_of(const Segment& part, const CacheAttention& c, bool causal, const KvBuffer& keys,
                            const KvBuffer& values) {
  int64_t D = keys.D, width = c.heads * D, group = c.heads / keys.heads, row = width * size_of(c.type);
  Attention a{};
  a.type = c.type, a.kv_type = keys.type, a.mask = causal && part.length > 1 ? Mask::causal : Mask::none;
  a.group = group, a.queries = part.length, a.keys = std::min<size_t>(part.offset + part.length, keys.capacity),
  a.dk = a.dv = D, a.scale = c.scale;
  a.q = c.rotated + part.first * row, a.y = c.y + part.first * row;
  a.k = keys.data, a.v = values.data;
  a.q_head = a.y_head = a.k_row = a.v_row = D, a.q_row = a.y_row = width, a.visible = part.offset + 1;
  AttentionBatch one{a, 1, keys.heads};
  one.q.head = one.y.head = group * D, one.k.head = keys.capacity * D, one.v.head = values.capacity * D;
  return one;
}

}  // namespace

void store_rows(const char* x, Type type, const RaggedBatch& batch, const Rope* rope, const std::vector<KvBuffer>& to) {
  size_t heads = to[0].heads, D = to[0].D, head = D * size_of(type);
  each_place(batch, heads * D, [&](size_t first, size_t stop, const std::vector<Place>& places) {
    std::vector<char> rotated(head);
    std::optional<Rotation> rotation;
    if (rope) rotation.emplace(*rope);
    for (size_t t = first; t < stop; t++) {
      if (rotation) rotation->set_position((float)places[t].position);
      auto& buffer = to[places[t].text];
      for (size_t h = 0; h < heads; h++) {
        const char* from = x + (t * heads + h) * head;
        if (rotation) rotation->rotate(from, rotated.data(), type, D);
        store(rotation ? rotated.data() : from, type, buffer, buffer.at(h, places[t].position - buffer.shift));
      }
    }
  });
}

void attend(const CacheAttention& a, const RaggedBatch& batch, const KvCaches& caches) {
  rotate_queries(a, batch, caches.keys[0].D);
  std::vector<AttentionBatch> all;
  for (size_t i = 0; i < batch.segments.size(); i++)
    all.push_back(attention_of(batch.segments[i], a, batch.causal, caches.keys[i], caches.values[i]));
  attend(all);
}

}  // namespace toast
