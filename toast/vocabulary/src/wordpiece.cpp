// Source: Schuster and Nakajima 2012, Japanese and Korean Voice Search; greedy as in BERT. In the trie a token that
// goes on with a word stands behind a prefix, which is walked once, when the file is made.
#include "wordpiece.h"

#include <algorithm>

namespace vocabulary {

void WordPiece::encode(const uint8_t* word, size_t n, std::vector<Piece>& out) const {
  const Options& o = form_.options();
  size_t before = out.size();
  bool known = std::count_if(word, word + n, [](uint8_t c) { return (c & 0xc0) != 0x80; }) <= o.longest;
  for (size_t at = 0; known && at < n;) {
    Piece found = longest(word + at, n - at, at ? o.continues : form_.at<Unit>(TRIE)->base);
    known = found.size;
    at += found.size;
    out.push_back(found);
  }
  if (known) return;
  out.resize(before);
  out.push_back({o.unknown, (uint32_t)n});
}

Piece WordPiece::longest(const uint8_t* word, size_t n, uint32_t base) const {
  Piece found{NONE, 0};
  size_t count = form_.count<Unit>(TRIE);
  const Unit* units = form_.at<Unit>(TRIE);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t next = base ^ word[i];
    if (next >= count || (units[next].label & 255) != word[i] || !word[i]) break;
    if (uint32_t token = units[next].label >> 8) found = {token - 1, i + 1};
    base = units[next].base;
  }
  return found;
}

}  // namespace vocabulary
