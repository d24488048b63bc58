// Who computes which heads and queries of attention. The arithmetic is in attention.cpp.
#include "attention_work.h"

#include <algorithm>

#include "threads.h"

namespace toast {
namespace {

constexpr size_t kScores = 1 << 16;  // scores of one tile: a quarter of an L2 cache
constexpr size_t kRows = 128;        // rows of one tile, so that there are tiles for all threads
constexpr size_t kAlone = 1 << 16;   // multiply-adds not worth waking a thread for

// Queries [first, first + count) of a key/value head's: one task for a thread.
struct Tile {
  const Attending* of;
  int64_t text, head, first, count;
};

void add_tiles(const Attending& all, std::vector<Tile>& tiles) {
  int64_t L = all.first.queries, step = attention_tile(all.first.group, L, all.first.keys);
  for (int64_t text = 0; text < (int64_t)all.texts; text++)
    for (int64_t head = 0; head < (int64_t)all.heads; head++)
      for (int64_t first = (L - 1) / step * step; first >= 0; first -= step)  // the long ones first
        tiles.push_back({&all, text, head, first, std::min(step, L - first)});
}

void run(const Tile& t) {
  Attention a = t.of->first;
  int64_t size = size_of(a.type), kept = size_of(a.kept), mask = a.mask == Mask::boolean ? 1 : size;
  auto move = [&](const void* x, const Attending::Step& s, int64_t row, int64_t size) {
    return x ? (char*)x + (t.text * s.text + t.head * s.head + t.first * row) * size : nullptr;
  };
  a.q = move(a.q, t.of->q, a.q_row, size), a.y = move(a.y, t.of->y, a.y_row, size);
  a.k = move(a.k, t.of->k, 0, kept), a.v = move(a.v, t.of->v, 0, kept);
  a.m = move(a.m, t.of->m, a.m_row, mask), a.sinks = move(a.sinks, t.of->sinks, 0, size);
  a.queries = t.count, a.visible += t.first;
  kernels().attention(a, (float*)scratch(0, kernels().attention_scratch(a) * sizeof(float)));
}

size_t products(const Attending& all) {
  const Attention& a = all.first;
  return all.texts * all.heads * a.group * a.queries * a.keys * (a.dk + a.dv);
}

}  // namespace

size_t attention_tile(size_t group, size_t queries, size_t keys) {
  size_t rows = std::min(kRows, std::max<size_t>(4, kScores / keys));
  size_t tile = std::min(queries, std::max<size_t>(1, rows / group));
  return tile > 4 ? tile - tile % 4 : tile;
}

void attend(const std::vector<Attending>& all) {
  std::vector<Tile> tiles;
  size_t work = 0;
  for (auto& one : all) {
    add_tiles(one, tiles);
    work += products(one);
  }
  if (work < kAlone)
    for (auto& tile : tiles) run(tile);
  else
    parallel(tiles.size(), [&](int i) { run(tiles[i]); });
}

}  // namespace toast
