// Unigram: of all ways to write a word in tokens the one whose scores sum up to most.
#pragma once
#include <vector>

#include "form.h"
#include "piece.h"

namespace vocabulary {

class Unigram {
 public:
  explicit Unigram(const Form& form);
  // The tokens of a word. Unknown characters in a row are one token, or those of their bytes.
  void encode(const uint8_t* word, size_t n, std::vector<Piece>& out);

 private:
  // The best way to write a word up to a place: its score, and its last token with the bytes of that.
  struct Best {
    double score;
    uint32_t token, size;  // size 0: none is known
  };
  static constexpr size_t WINDOW = 4096;  // bytes after which a place that all ways go through is looked for

  size_t tokens_at(const uint8_t* word, size_t at, size_t n);
  void offer(size_t at, double score, uint32_t token, uint32_t size);
  void settle(size_t to);
  void finish(const uint8_t* word, std::vector<Piece>& out) const;

  const Form& form_;
  const Unit* units_;
  const double* scores_;
  size_t count_;
  uint32_t unknown_, longest_;
  size_t base_ = 0;  // the place that best_ begins at
  std::vector<Best> best_;
  std::vector<Piece> found_, back_;
};

}  // namespace vocabulary
