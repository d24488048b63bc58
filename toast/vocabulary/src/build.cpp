#include "build.h"

#include <map>
#include <stdexcept>

#include "double_array.h"
#include "model.h"

namespace vocabulary {
namespace {

template <typename T>
void append(std::string& out, const T& value) {
  out.append((const char*)&value, sizeof value);
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {(const char*)values.data(), values.size() * sizeof(T)};
}

size_t room(size_t n) {  // slots for n keys, at most 2/3 of them taken
  size_t size = 4;
  while (size * 2 < n * 3) size *= 2;
  return size;
}

// Where a key with this hash may stand.
template <typename T, typename F>
size_t free_slot(const std::vector<T>& slots, uint64_t hash, F&& is_free) {
  for (uint32_t i = 0; i < PROBES; i++) {
    size_t at = (hash + i) & (slots.size() - 1);
    if (is_free(slots[at])) return at;
  }
  throw std::runtime_error("a crowded table");
}

std::string text_slots(const Source& s) {
  std::vector<uint32_t> slots(room(s.texts.size()), 0);
  for (uint32_t i = 0; i < s.texts.size(); i++) {
    if (!s.findable[i]) continue;
    uint64_t h = hash((const uint8_t*)s.texts[i].data(), s.texts[i].size());
    slots[free_slot(slots, h, [](uint32_t slot) { return !slot; })] = i + 1;
  }
  return raw(slots);
}

std::string merge_slots(const Source& s) {
  size_t n = s.merges.size() / 3;
  std::vector<Merge> slots(room(n), Merge{0, 0, 0, NONE});
  for (uint32_t rank = 0; rank < n; rank++) {
    Merge m{s.merges[3 * rank], s.merges[3 * rank + 1], rank, s.merges[3 * rank + 2]};
    auto same = [&](const Merge& slot) { return slot.token == NONE || (slot.left == m.left && slot.right == m.right); };
    slots[free_slot(slots, hash(m.left, m.right), same)] = m;  // of two, the last counts
  }
  return raw(slots);
}

// Pairs of characters inside of what merges make.
std::string safe_bits(const Source& s) {
  if (!s.options.characters || s.options.model != MERGED) return std::string(1, '\xff');
  std::string bits(1 << 17, '\0');
  uint64_t mask = 8 * bits.size() - 1;
  for (size_t k = 2; k < s.merges.size(); k += 3) {
    const std::string& text = s.texts[s.merges[k]];
    const uint8_t* p = (const uint8_t*)text.data();
    uint32_t before = 0;
    for (size_t i = 0, n; i < text.size(); i += n) {
      n = std::min(width(p[i]), text.size() - i);
      uint32_t c = decode(p + i, n);
      uint64_t bit = hash(before, c) & mask;
      if (i) bits[bit >> 3] |= 1 << (bit & 7);
      before = c;
    }
  }
  return bits;
}

std::vector<Unit> token_trie(const Source& s) {
  std::vector<std::pair<std::string_view, uint32_t>> keys;
  for (uint32_t i = 0; i < s.texts.size(); i++)
    if (s.findable[i] && !s.texts[i].empty()) keys.push_back({s.texts[i], i});
  return double_array(std::move(keys));
}

// The base of the unit that a text leads to; 0, which nothing follows, where it leads nowhere.
uint32_t base_after(const std::vector<Unit>& units, const std::string& text) {
  uint32_t base = units[0].base;
  for (uint8_t c : text) {
    const Unit& next = units[base ^ c];
    if ((next.label & 255) != c) return 0;
    base = next.base;
  }
  return base;
}

struct Trie {
  struct Branch {
    std::map<uint8_t, uint32_t> children;
    uint32_t added = 0;
  };
  std::vector<Branch> nodes{2};

  void put(uint32_t root, const std::string& key, uint32_t value) {
    uint32_t node = root;
    for (uint8_t byte : key) {
      uint32_t& child = nodes[node].children[byte];
      uint32_t next = child;
      if (!next) {
        next = child = nodes.size();
        nodes.emplace_back();
      }
      node = next;
    }
    nodes[node].added = value;
  }

  void write(std::string& to_nodes, std::string& to_edges) const {
    for (const Branch& branch : nodes) {
      append(to_nodes, Node{(uint32_t)(to_edges.size() / 4), branch.added});
      for (auto [byte, child] : branch.children) append(to_edges, byte | child << 8);
    }
    append(to_nodes, Node{(uint32_t)(to_edges.size() / 4), 0});
  }
};

void put_added(const Source& s, std::array<std::string, SECTIONS>& sections) {
  Trie trie;
  for (uint32_t i = 0; i < s.added.size(); i++) {
    const auto& a = s.added[i];
    trie.put(a.flags & NORMALIZED ? 1 : 0, a.sought, i + 1);
    append(sections[ADDED], Added{a.token, a.flags, (uint32_t)sections[CONTENTS].size(), (uint32_t)a.content.size()});
    sections[CONTENTS] += a.content;
  }
  if (trie.nodes.size() >> 24) throw std::runtime_error("too many added tokens");
  trie.write(sections[NODES], sections[EDGES]);
}

std::string assembled(const std::array<std::string, SECTIONS>& sections) {
  Header header{};
  memcpy(header.magic, MAGIC, sizeof MAGIC);
  header.version = VERSION;
  header.sections = SECTIONS;
  uint64_t at = (sizeof header + 63) / 64 * 64;
  for (uint32_t i = 0; i < SECTIONS; i++) {
    header.ranges[i] = {at, sections[i].size()};
    at = (at + sections[i].size() + 63) / 64 * 64;
  }
  header.size = at;
  std::string file((const char*)&header, sizeof header);
  for (uint32_t i = 0; i < SECTIONS; i++) {
    file.resize(header.ranges[i].begin, '\0');
    file += sections[i];
  }
  file.resize(at, '\0');
  ((Header*)file.data())->sum = sum_of((const uint8_t*)file.data());
  return file;
}

// Marks the tokens whose text, met as a word, becomes them: most words are then found at once.
void mark_alone(const Source& s, std::string& file) {
  std::string flags = raw(s.flags);
  {
    Form form((const uint8_t*)file.data(), file.size());
    Model model(form, 0);
    std::vector<Piece> found;
    for (uint32_t i = 0; i < s.texts.size(); i++) {
      if (!s.findable[i] || s.texts[i].empty()) continue;
      found.clear();
      model.encode((const uint8_t*)s.texts[i].data(), s.texts[i].size(), found);
      if (found.size() == 1 && found[0].token == i) flags[i] |= ALONE;
    }
  }
  memcpy(&file[((const Header*)file.data())->ranges[FLAGS].begin], flags.data(), flags.size());
}

}  // namespace

std::string build(const Source& s) {
  auto sections = s.sections;
  Options options = s.options;
  if (options.model != MERGED) {
    auto trie = token_trie(s);
    options.continues = base_after(trie, s.prefix);
    sections[TRIE] = raw(trie);
    sections[SCORES] = raw(s.scores);
  }
  append(sections[OPTIONS], options);
  for (const std::string& text : s.texts) {
    append(sections[TEXT_AT], (uint32_t)sections[TEXT].size());
    sections[TEXT] += text;
  }
  append(sections[TEXT_AT], (uint32_t)sections[TEXT].size());
  sections[FLAGS] = raw(s.flags);
  sections[SLOTS] = text_slots(s);
  sections[MERGES] = merge_slots(s);
  sections[SYMBOLS] = raw(s.symbols);
  sections[SAFE] = safe_bits(s);
  put_added(s, sections);
  std::string file = assembled(sections);
  mark_alone(s, file);
  return file;
}

}  // namespace vocabulary
