// Cutting a text into words by automata that Python made of the pre-tokenizer's patterns (patterns.py).
#pragma once
#include "form.h"

namespace vocabulary {

class Splitter {
 public:
  explicit Splitter(const Form& form) : form_(form), splits_(form.at<Split>(SPLITS)), count_(form.options().cuts) {}

  // word(begin, end) for each word of [p, end), in order.
  template <typename F>
  void words(const uint8_t* p, const uint8_t* end, F&& word) const {
    step(0, p, end, word);
  }

  // Where the leftmost-first match that begins at p ends; null for none.
  const uint8_t* match(const Split& split, const uint8_t* p, const uint8_t* end) const {
    const uint16_t* states = form_.at<uint16_t>(STATES) + split.begin;
    const uint16_t* class_at = form_.at<uint16_t>(CLASS_AT);
    const uint8_t* classes = form_.at<uint8_t>(CLASSES);
    const uint8_t* ascii = classes + class_at[0] * 128u;
    uint32_t row = split.classes + 1, state = 0;
    const uint8_t* found = nullptr;
    while (p < end) {
      uint32_t kind;
      size_t n = 1;
      if (*p < 0x80) {
        kind = ascii[*p];
      } else {
        n = width(*p);
        uint32_t c = vocabulary::decode(p, n);
        kind = classes[class_at[c >> 7] * 128u + (c & 127)];
      }
      uint16_t next = states[state * row + kind];
      if (next & 1) found = p;
      state = next >> 1;
      if (state == DEAD) return found;
      p += n;
    }
    return states[state * row + split.classes] & 1 ? end : found;
  }

 private:
  template <typename F>
  void step(size_t i, const uint8_t* p, const uint8_t* end, F&& word) const {
    if (p == end) return;
    if (i == count_) return word(p, end);
    const Split& split = splits_[i];
    const uint8_t* rest = p;  // what no word has taken yet
    while (p < end) {
      const uint8_t* stop = match(split, p, end);
      if (!stop) {
        p += width(*p);
        continue;
      }
      if (split.keeps_rest) step(i + 1, rest, p, word);
      step(i + 1, p, stop, word);
      rest = p = stop;
    }
    if (split.keeps_rest) step(i + 1, rest, end, word);
  }

  const Form& form_;
  const Split* splits_;
  size_t count_;
};

}  // namespace vocabulary
