// Byte-pair encoding. Source: Sennrich et al. 2016, arXiv:1508.07909; ties go to the leftmost pair.
#include "merge.h"

#include <algorithm>
#include <queue>

namespace vocabulary {

void Merger::encode(const uint8_t* word, size_t n, std::vector<Piece>& out) {
  symbols_.clear();
  symbols(word, n);
  if (symbols_.size() <= SHORT)
    merge_short();
  else
    merge_long();
  out.insert(out.end(), symbols_.begin(), symbols_.end());
}

// A symbol that the vocabulary has not. follows: so is the one before.
void Merger::unknown(size_t n, bool follows) {
  const Options& o = form_.options();
  if (o.unknown == NONE)
    skipped_ = true;
  else if (o.fuses && follows)
    symbols_.back().size += n;
  else
    symbols_.push_back({o.unknown, (uint32_t)n});
}

// The symbols that a word begins as: its bytes, or its characters.
void Merger::symbols(const uint8_t* word, size_t n) {
  const Options& o = form_.options();
  const uint32_t* bytes = form_.at<uint32_t>(SYMBOLS);
  bool lacking = false;  // the symbol before is unknown
  for (size_t i = 0, size; i < n; i += size) {
    size = o.characters ? std::min(width(word[i]), n - i) : 1;
    uint32_t token = o.characters ? form_.find(word + i, size) : bytes[word[i]];
    bool follows = lacking;
    lacking = token == NONE;
    if (!lacking)
      symbols_.push_back({token, (uint32_t)size});
    else if (o.falls_back)
      for (size_t k = 0; k < size; k++) symbols_.push_back({bytes[word[i + k]], 1});
    else
      unknown(size, follows);
  }
}

void Merger::merge_short() {
  const Merge* pairs[SHORT];
  size_t n = symbols_.size();
  Piece* s = symbols_.data();
  for (size_t i = 0; i + 1 < n; i++) pairs[i] = form_.merge(s[i].token, s[i + 1].token);
  while (n > 1) {
    size_t best = n;
    uint32_t rank = NONE;
    for (size_t i = 0; i + 1 < n; i++)
      if (pairs[i] && pairs[i]->rank < rank) {
        rank = pairs[i]->rank;
        best = i;
      }
    if (best == n) break;
    s[best] = {pairs[best]->token, s[best].size + s[best + 1].size};
    n--;
    for (size_t i = best + 1; i < n; i++) s[i] = s[i + 1];
    for (size_t i = best + 1; i + 1 < n; i++) pairs[i] = pairs[i + 1];
    if (best + 1 < n) pairs[best] = form_.merge(s[best].token, s[best + 1].token);
    if (best) pairs[best - 1] = form_.merge(s[best - 1].token, s[best].token);
  }
  symbols_.resize(n);
}

// The same with a heap: the time of a long word grows by n log n.
void Merger::merge_long() {
  struct Candidate {  // stale where its place has a pair of another rank by now
    uint32_t rank, at;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  auto& s = symbols_;
  uint32_t n = s.size();
  std::vector<uint32_t> next(n), before(n);
  std::vector<Candidate> room;
  room.reserve(n);
  std::priority_queue<Candidate> heap(std::less<Candidate>(), std::move(room));
  auto offer = [&](uint32_t a, uint32_t b) {
    if (const Merge* m = form_.merge(s[a].token, s[b].token)) heap.push({m->rank, a});
  };
  for (uint32_t i = 0; i < n; i++) {
    next[i] = i + 1;
    before[i] = i - 1;  // NONE for the first
    if (i + 1 < n) offer(i, i + 1);
  }
  while (!heap.empty()) {
    Candidate c = heap.top();
    heap.pop();
    uint32_t b = s[c.at].size ? next[c.at] : n;
    if (b >= n) continue;
    const Merge* now = form_.merge(s[c.at].token, s[b].token);
    if (!now || now->rank != c.rank) continue;
    s[c.at] = {now->token, s[c.at].size + s[b].size};
    s[b].size = 0;
    next[c.at] = next[b];
    if (next[b] < n) before[next[b]] = c.at;
    if (before[c.at] != NONE) offer(before[c.at], c.at);
    if (next[c.at] < n) offer(c.at, next[c.at]);
  }
  std::erase_if(s, [](const Piece& p) { return !p.size; });
}

}  // namespace vocabulary
