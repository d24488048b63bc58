// Compiled vocabularies without Python: vocabulary_main TEXT COUNT FORM... encodes TEXT with each file as it is, and
// with COUNT damaged copies, which must give some tokens or be refused. The sanitizers run this.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <stdexcept>

#include "encode.h"

using namespace vocabulary;

static std::string read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Give a file a right sum, if its ranges are inside of it.
static void seal(std::string& form) {
  if (form.size() < sizeof(Header)) return;
  Header& h = *(Header*)form.data();
  for (const Range& r : h.ranges)
    if (r.begin > form.size() || r.size > form.size() - r.begin) return;
  h.sum = sum_of((const uint8_t*)form.data());
}

// A number that tells results apart; -1 for a file that is refused.
static long use(const std::string& form, const std::string& text) {
  size_t room = (form.size() + 63) / 64 * 64;
  std::unique_ptr<uint8_t, void (*)(void*)> data((uint8_t*)aligned_alloc(64, room ? room : 64), free);
  memcpy(data.get(), form.data(), form.size());
  try {
    Vocabulary v(data.get(), form.size());
    long sum = 0;
    std::vector<uint32_t> ids;
    for (int trim = 0; trim < 3; trim++)
      for (const Token& t : v.encode(text, trim)) {
        sum += t.id + t.begin + t.end;
        ids.push_back(t.id);
      }
    for (uint32_t i = 0; i < 300; i++) ids.push_back(i * 7);
    return sum + v.decode(ids.data(), ids.size(), true).size();
  } catch (const Unsure&) {
    return -2;
  } catch (const std::runtime_error&) {
    return -1;
  }
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  std::string text = read(argv[1]);
  std::mt19937 random(7);
  for (int i = 3; i < argc; i++) {
    std::string form = read(argv[i]);
    long whole = use(form, text), refused = 0;
    if (whole < 0) return 1;
    for (int k = 0; k < atoi(argv[2]); k++) {
      std::string bad = form;
      if (k % 8 == 7) bad.resize(random() % bad.size());
      bool seals = k % 2;  // damage behind a right sum goes further
      // the header and the tables that lead elsewhere are hit more often than the rest
      for (int n = random() % 20; n >= 0 && !bad.empty(); n--)
        bad[random() % (n % 2 ? bad.size() : std::min<size_t>(bad.size(), 2048))] = random();
      if (seals) seal(bad);
      refused += use(bad, text) == -1;
    }
    printf("%s: %ld, %ld refused\n", argv[i], whole, refused);
  }
  puts("ok");
}
