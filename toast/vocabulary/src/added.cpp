#include "added.h"

#include <algorithm>

namespace vocabulary {

Finder::Finder(const Form& form, uint32_t root) : form_(form) {
  for (int b = 0; b < 256; b++) {
    first_[b] = child(root, b);
    if (first_[b]) empty_ = false;
  }
}

uint32_t Finder::child(uint32_t node, uint8_t byte) const {
  size_t nodes = form_.count<Node>(NODES), edges = form_.count<uint32_t>(EDGES);
  if (node + 1 >= nodes) return 0;
  const Node* n = form_.at<Node>(NODES) + node;
  size_t a = n[0].edges, b = n[1].edges;
  if (a > b || b > edges) return 0;
  const uint32_t *begin = form_.at<uint32_t>(EDGES) + a, *end = form_.at<uint32_t>(EDGES) + b;
  auto found = std::lower_bound(begin, end, byte, [](uint32_t edge, uint8_t x) { return (edge & 255) < x; });
  return found != end && (*found & 255) == byte ? *found >> 8 : 0;
}

const Added* Finder::longest(const uint8_t* p, size_t n, size_t* size) const {
  const Added* found = nullptr;
  uint32_t node = first_[*p];
  for (size_t i = 1; node; i++) {
    if (node + 1 >= form_.count<Node>(NODES)) break;
    uint32_t added = form_.at<Node>(NODES)[node].added;
    if (added && added <= form_.count<Added>(ADDED)) {
      found = form_.at<Added>(ADDED) + added - 1;
      *size = i;
    }
    if (i == n) break;
    node = child(node, p[i]);
  }
  return found;
}

static size_t spaces_before(const uint8_t* text, size_t at, size_t least) {
  while (at > least) {
    size_t k = at - 1;
    while (k > least && (text[k] & 0xc0) == 0x80) k--;
    if (!is_space(decode(text + k, at - k))) break;
    at = k;
  }
  return at;
}

static size_t spaces_after(const uint8_t* text, size_t at, size_t n) {
  while (at < n) {
    size_t size = std::min(width(text[at]), n - at);
    if (!is_space(decode(text + at, size))) break;
    at += size;
  }
  return at;
}

void Finder::find(const uint8_t* text, size_t n, std::vector<Match>& out) const {
  size_t done = 0;
  for (size_t at = 0, size = 0; !empty_ && at < n;) {
    const Added* token = first_[text[at]] ? longest(text + at, n - at, &size) : nullptr;
    if (!token) {
      at++;
      continue;
    }
    size_t begin = at, end = at + size;
    at = end;  // a match never begins in the one before it, blanks that one took may belong to both
    if (token->flags & LSTRIP) begin = std::max(spaces_before(text, begin, 0), done);
    if (token->flags & RSTRIP) end = spaces_after(text, end, n);
    if (done < begin) out.push_back({nullptr, done, begin});
    out.push_back({token, begin, end});
    done = end;
  }
  if (done != n) out.push_back({nullptr, done, n});
}

}  // namespace vocabulary
