// Which row of a layer stands where in the cache. The arithmetic is in rope.cpp and attention.cpp.
#include "cache_work.h"

#include <cstring>
#include <optional>

#include "attention_work.h"
#include "threads.h"

namespace toast {
namespace {

struct Place {
  size_t row, position;
};

// f(the rows from `first` to `stop`, of `places`) for all rows of n elements, in pieces.
template <class F>
void each_place(const Segments& segments, size_t n, F f) {
  std::vector<Place> places;
  for (auto& part : segments)
    for (int t = 0; t < part.length; t++) places.push_back({(size_t)part.row, (size_t)(part.offset + t)});
  each_rows(places.size(), n, [&](size_t first, size_t count) { f(first, first + count, places); });
}

// x[D] kept at `to`
void keep(const char* x, Type type, const Kept& kept, char* to) {
  if (kept.type == type)
    std::memcpy(to, x, kept.D * size_of(type));
  else
    kernels().from_f32((const float*)x, to, kept.type, kept.D);
}

}  // namespace

void place(const char* x, Type type, const Segments& segments, const Rope* rope, const Kept& to) {
  size_t head = to.D * size_of(type);
  each_place(segments, to.heads * to.D, [&](size_t first, size_t stop, const std::vector<Place>& places) {
    std::vector<char> turned(head);
    std::optional<Turn> turn;
    if (rope) turn.emplace(*rope);
    for (size_t t = first; t < stop; t++) {
      if (turn) turn->at((float)places[t].position);
      for (size_t h = 0; h < to.heads; h++) {
        const char* from = x + (t * to.heads + h) * head;
        if (turn) turn->head(from, turned.data(), type, to.D);
        keep(turn ? turned.data() : from, type, to, to.at(places[t].row, h, places[t].position));
      }
    }
  });
}

void attend(const char* q, Type type, int n, const Segments& segments, const Rope& rope, float scale, bool causal,
            const Kept& keys, const Kept& values, char* turned, char* y) {
  size_t D = keys.D, row = n * D * size_of(type);
  each_place(segments, n * D, [&](size_t first, size_t stop, const std::vector<Place>& places) {
    Turn turn(rope);
    for (size_t t = first; t < stop; t++) {
      turn.at((float)places[t].position);
      for (int h = 0; h < n; h++)
        turn.head(q + t * row + h * D * size_of(type), turned + t * row + h * D * size_of(type), type, D);
    }
  });
  std::vector<Attending> all;
  for (auto& part : segments) {
    int64_t width = n * D, group = n / keys.heads;
    Attention a{};
    a.type = type, a.kept = keys.type, a.mask = causal && part.length > 1 ? Mask::causal : Mask::none;
    a.group = group, a.queries = part.length, a.keys = part.offset + part.length, a.dk = a.dv = D, a.scale = scale;
    a.q = turned + part.first * row, a.y = y + part.first * row, a.k = keys.at(part.row, 0, 0),
    a.v = values.at(part.row, 0, 0);
    a.q_head = a.y_head = a.k_row = a.v_row = D, a.q_row = a.y_row = width, a.visible = part.offset + 1;
    Attending one{a, 1, keys.heads};
    one.q.head = one.y.head = group * D, one.k.head = keys.capacity * D, one.v.head = values.capacity * D;
    all.push_back(one);
  }
  attend(all);
}

}  // namespace toast
