// Source: Aoe 1989, An Efficient Digital Search Algorithm by Using a Double-Array Structure. No two units share a base,
// so that a unit's label tells whose child it is. Units below 256 are never anybody's: base 0 has no child.
#include "double_array.h"

#include <algorithm>
#include <stdexcept>

namespace vocabulary {
namespace {

constexpr size_t BLOCK = 256, OPEN = 1 << 10;  // units from which on holes are no longer looked for

class Maker {
 public:
  using Keys = std::vector<std::pair<std::string_view, uint32_t>>;

  explicit Maker(const Keys& keys) : keys_(keys) {
    grow();
    grow();
    std::vector<Range> todo{{0, keys.size(), 0, 0}};
    while (!todo.empty()) {
      Range range = todo.back();
      todo.pop_back();
      children(range, todo);
    }
  }
  std::vector<Unit> units;

 private:
  struct Range {  // keys that share their first bytes, and the unit that those lead to
    size_t begin, end, depth;
    uint32_t unit;
  };

  void grow() {
    units.resize(units.size() + BLOCK);
    taken_.resize(units.size());
    bases_.resize(units.size());
  }

  void children(Range range, std::vector<Range>& todo) {
    if (range.begin < range.end && keys_[range.begin].first.size() == range.depth) {
      units[range.unit].label |= (keys_[range.begin].second + 1) << 8;
      range.begin++;
    }
    if (range.begin == range.end) return;
    size_t first = todo.size();
    labels_.clear();
    for (size_t i = range.begin; i < range.end; i++) {
      uint8_t label = keys_[i].first[range.depth];
      if (labels_.empty() || labels_.back() != label) {
        labels_.push_back(label);
        todo.push_back({i, i, range.depth + 1, 0});
      }
      todo.back().end = i + 1;
    }
    uint32_t base = free_base();
    units[range.unit].base = base;
    bases_[base] = true;
    for (size_t i = 0; i < labels_.size(); i++) {
      uint32_t at = todo[first + i].unit = base ^ labels_[i];
      taken_[at] = true;
      units[at].label = labels_[i];
    }
  }

  uint32_t free_base() {
    if (units.size() > OPEN) open_ = std::max(open_, units.size() - OPEN);
    while (open_ < units.size() && taken_[open_]) open_++;
    for (size_t at = open_;; at++) {
      if (at == units.size()) grow();
      uint32_t base = at ^ labels_[0];
      if (taken_[at] || bases_[base]) continue;
      if (std::none_of(labels_.begin(), labels_.end(), [&](uint8_t label) { return taken_[base ^ label]; }))
        return base;
    }
  }

  const Keys& keys_;
  std::vector<bool> taken_, bases_;
  std::vector<uint8_t> labels_;
  size_t open_ = BLOCK;
};

}  // namespace

std::vector<Unit> double_array(std::vector<std::pair<std::string_view, uint32_t>> keys) {
  std::sort(keys.begin(), keys.end());
  for (auto& [text, token] : keys)
    if (text.empty() || text.find('\0') != text.npos || token >> 24 || token == 0xffffff)
      throw std::runtime_error("a token that no trie can hold");
  return Maker(keys).units;
}

}  // namespace vocabulary
