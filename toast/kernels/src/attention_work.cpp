// Who computes which heads and queries of attention. The arithmetic is in attention.cpp.
#include "attention_work.h"

#include <algorithm>

#include "threads.h"

namespace toast {
namespace {

// Queries [first, first + count) of a key/value head's: one task for a thread.
struct Tile {
  const AttentionBatch* of;
  int64_t text, head, first, count;
};

void add_tiles(const AttentionBatch& all, std::vector<Tile>& tiles) {
  int64_t L = all.first.queries, step = attention_tile(all.first.group, L, all.first.keys);
  for (int64_t text = 0; text < (int64_t)all.texts; text++)
    for (int64_t head = 0; head < (int64_t)all.heads; head++)
      for (int64_t first = (L - 1) / step * step; first >= 0; first -= step)  // the long ones first
        tiles.push_back({&all, text, head, first, std::min(step, L - first)});
}

void run(const Tile& t) {
  Attention a = t.of->first;
  int64_t size = size_of(a.type), kv = size_of(a.kv_type), mask = a.mask == Mask::boolean ? 1 : size;
  auto move = [&](const void* x, const AttentionBatch::Step& s, int64_t row, int64_t size) {
    return x ? (char*)x + (t.text * s.text + t.head * s.head + t.first * row) * size : nullptr;
  };
  a.q = move(a.q, t.of->q, a.q_row, size), a.y = move(a.y, t.of->y, a.y_row, size);
  a.k = move(a.k, t.of->k, 0, kv), a.v = move(a.v, t.of->v, 0, kv);
  a.m = move(a.m, t.of->m, a.m_row, mask), a.sinks = move(a.sinks, t.of->sinks, 0, size);
  a.queries = t.count, a.visible += t.first;
  Scratch scratch(kernels().attention_scratch(a) * sizeof(float));
  kernels().attention(a, scratch.floats());
}

size_t products(const AttentionBatch& all) {
  const Attention& a = all.first;
  return all.texts * all.heads * a.group * a.queries * a.keys * (a.dk + a.dv);
}

}  // namespace

size_t attention_tile(size_t group, size_t queries, size_t keys) {
  size_t rows = std::min(tuning::ATTENTION_TASK_ROWS, std::max<size_t>(4, tuning::ATTENTION_SCORES / keys));
  size_t tile = std::min(queries, std::max<size_t>(1, rows / group));
  return tile > 4 ? tile - tile % 4 : tile;
}

void attend(const std::vector<AttentionBatch>& all) {
  std::vector<Tile> tiles;
  size_t work = 0;
  for (auto& one : all) {
    add_tiles(one, tiles);
    work += products(one);
  }
  if (work < tuning::ATTENTION_PRODUCTS)
    for (auto& tile : tiles) run(tile);
  else
    parallel(tiles.size(), [&](int i) { run(tiles[i]); });
}

}  // namespace toast
