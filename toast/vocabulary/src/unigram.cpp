// Source: Kudo 2018, arXiv:1804.10959; the search is Viterbi's. Scores are summed up from the left and the first of two
// equal ways counts, as in the tokenizers library, so that both round alike.
#include "unigram.h"

#include <algorithm>

namespace vocabulary {

Unigram::Unigram(const Form& form)
    : form_(form),
      units_(form.at<Unit>(TRIE)),
      scores_(form.at<double>(SCORES)),
      count_(form.count<Unit>(TRIE)),
      unknown_(form.options().unknown),
      longest_(std::max(form.options().longest, 4u)) {}

void Unigram::encode(const uint8_t* word, size_t n, std::vector<Piece>& out) {
  double lacking = scores_[form_.tokens()];
  size_t reach = 0;  // where the tokens so far end
  found_.clear();
  base_ = 0;
  best_.assign(1, Best{0, 0, 0});
  for (size_t at = 0, size; at < n; at += size) {
    if (at - base_ >= WINDOW && reach <= at) settle(at);
    size = std::min(width(word[at]), n - at);
    size_t room = at - base_ + std::min<size_t>(longest_, n - at) + 1;
    if (best_.size() < room) best_.resize(room, Best{0, 0, 0});
    size_t furthest = tokens_at(word, at, n);
    bool single = furthest & 1;
    if (!single) offer(at, lacking, unknown_, size);
    reach = std::max({reach, furthest >> 1, at + size});
  }
  settle(n);
  finish(word, out);
}

// Offers the tokens that begin here: where the longest ends * 2, + 1 if one of them is the first character alone.
size_t Unigram::tokens_at(const uint8_t* word, size_t at, size_t n) {
  size_t end = std::min<size_t>(n, at + longest_), character = at + width(word[at]), furthest = at;
  bool single = false;
  uint32_t base = units_[0].base;
  for (size_t i = at; i < end; i++) {
    uint32_t next = base ^ word[i];
    if (next >= count_ || (units_[next].label & 255) != word[i] || !word[i]) break;
    uint32_t token = units_[next].label >> 8;
    base = units_[next].base;
    if (!token || token > form_.tokens()) continue;
    offer(at, scores_[token - 1], token - 1, i + 1 - at);
    furthest = i + 1;
    single |= furthest == character;
  }
  return furthest * 2 + single;
}

inline void Unigram::offer(size_t at, double score, uint32_t token, uint32_t size) {
  double sum = score + best_[at - base_].score;
  Best& best = best_[at - base_ + size];
  if (!best.size || sum > best.score) best = {sum, token, size};
}

// Puts the best way from where best_ begins to a place that all ways go through.
void Unigram::settle(size_t to) {
  back_.clear();
  for (size_t at = to - base_; at;) {
    const Best& best = best_[at];
    if (!best.size || best.size > at) break;  // of a damaged file
    back_.push_back({best.token, best.size});
    at -= best.size;
  }
  found_.insert(found_.end(), back_.rbegin(), back_.rend());
  best_[0] = {best_[to - base_].score, 0, 0};
  best_.resize(1);
  base_ = to;
}

// What is unknown in one: its token, or those of its bytes, which all have its place.
void Unigram::finish(const uint8_t* word, std::vector<Piece>& out) const {
  const uint32_t* bytes = form_.at<uint32_t>(SYMBOLS);
  size_t at = 0;
  for (size_t i = 0; i < found_.size();) {
    Piece p = found_[i++];
    if (p.token != unknown_) {
      out.push_back(p);
      at += p.size;
      continue;
    }
    for (; i < found_.size() && found_[i].token == unknown_; i++) p.size += found_[i].size;
    uint32_t known = form_.find(word + at, p.size);
    bool falls_back = known == NONE && form_.options().falls_back;
    out.push_back({known != NONE ? known : falls_back ? bytes[word[at]] : unknown_, p.size});
    for (size_t k = 1; falls_back && k < p.size; k++) out.push_back({bytes[word[at + k]], 0});
    at += p.size;
  }
}

}  // namespace vocabulary
