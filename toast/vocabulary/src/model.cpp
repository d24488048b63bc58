#include "model.h"

namespace vocabulary {

Model::Model(const Form& form, size_t expected) : form_(form), merger_(form), unigram_(form), wordpiece_(form) {
  if (expected > 4096) remembered_.resize(ENTRIES, Entry{});
}

void Model::encode(const uint8_t* word, size_t n, std::vector<Piece>& out) {
  merger_.forget();
  uint32_t whole = form_.find(word, n);
  if (whole != NONE && (form_.options().ignores_merges || form_.flags(whole) & ALONE)) {
    out.push_back({whole, (uint32_t)n});
    return;
  }
  if (remembered_.empty() || n > sizeof(Entry::word)) return look(word, n, out);
  uint64_t key = hash(word, n);
  Entry& e = remembered_[key % ENTRIES];
  if (e.count && e.hash == key && e.size == n && !memcmp(e.word, word, n)) {
    for (int i = 0; i < e.count; i++) out.push_back({e.tokens[i], e.sizes[i]});
    return;
  }
  size_t before = out.size();
  look(word, n, out);
  size_t count = out.size() - before;
  if (!count || count > 6 || skipped()) return;
  e.hash = key;
  e.size = n;
  e.count = count;
  memcpy(e.word, word, n);
  for (size_t i = 0; i < count; i++) {
    e.tokens[i] = out[before + i].token;
    e.sizes[i] = out[before + i].size;
  }
}

void Model::look(const uint8_t* word, size_t n, std::vector<Piece>& out) {
  switch (form_.options().model) {
    case SCORED:
      return unigram_.encode(word, n, out);
    case LONGEST:
      return wordpiece_.encode(word, n, out);
    default:
      return merger_.encode(word, n, out);
  }
}

}  // namespace vocabulary
