// The tokens of one word, by merges, by scores or by length.
#pragma once
#include <vector>

#include "merge.h"
#include "unigram.h"
#include "wordpiece.h"

namespace vocabulary {

class Model {
 public:
  // expected: bytes of all words; a long text's words are remembered
  Model(const Form& form, size_t expected);
  void encode(const uint8_t* word, size_t n, std::vector<Piece>& out);
  bool skipped() const { return merger_.skipped(); }  // whether the last word had symbols that were left out

 private:
  static constexpr size_t ENTRIES = 8192;  // words that are remembered
  struct Entry {
    uint64_t hash;
    uint8_t size, count;
    uint8_t sizes[6];
    uint32_t tokens[6];
    uint8_t word[24];
  };

  void look(const uint8_t* word, size_t n, std::vector<Piece>& out);

  const Form& form_;
  Merger merger_;
  Unigram unigram_;
  WordPiece wordpiece_;
  std::vector<Entry> remembered_;
};

}  // namespace vocabulary
