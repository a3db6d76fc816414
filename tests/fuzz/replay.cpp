// A main for LLVMFuzzerTestOneInput where there is no libFuzzer:
//
//   fuzz_NAME [--seconds N] [--seed S] FILE_OR_FOLDER...
//
// Runs each file once; with --seconds, then changed copies of them for that long. The same seed gives the same inputs.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kMaxBytes = 1 << 16;

struct Xorshift {
  std::uint64_t state;
  std::uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
  std::size_t below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(next() % n); }
};

const std::string kTokens[] = {"\"",
                               "{",
                               "}",
                               "[",
                               "]",
                               ":",
                               ",",
                               "null",
                               "true",
                               "-1",
                               "0",
                               "1e9",
                               "9223372036854775807",
                               "9223372036854775808",
                               "18446744073709551616",
                               "1e999",
                               "\\u0000",
                               "\\ud800",
                               "\xff",
                               "(",
                               ")",
                               "*",
                               "+",
                               "\\",
                               ";",
                               "=",
                               std::string(1, '\0'),
                               std::string(3000, '['),
                               std::string(300, '(')};

std::string mutated(const std::vector<std::string>& seeds, Xorshift& random) {
  std::string input = seeds[random.below(seeds.size())];
  for (std::size_t changes = 1 + random.below(6); changes > 0; --changes) {
    const std::size_t at = random.below(input.size() + 1);
    switch (random.below(6)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(random.next());
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ 1 << random.below(8));
        break;
      case 2:
        input.erase(at, random.below(16));
        break;
      case 3:
        input.insert(at, kTokens[random.below(std::size(kTokens))]);
        break;
      case 4:
        input.insert(at, input.substr(random.below(input.size()), random.below(64)));
        break;
      default: {
        const std::string& other = seeds[random.below(seeds.size())];
        input = input.substr(0, at) + other.substr(random.below(other.size()));
      }
    }
  }
  if (input.size() > kMaxBytes) input.resize(kMaxBytes);
  return input;
}

void run(const std::string& input) {
  try {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  } catch (const std::exception& error) {
    std::ofstream("escaped-input", std::ios::binary) << input;
    std::fprintf(stderr, "an exception escaped: %s (the input of %zu bytes is in ./escaped-input)\n", error.what(), input.size());
    std::exit(1);
  }
}

std::vector<std::string> read_seeds(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> seeds;
  for (const std::filesystem::path& path : paths) {
    if (std::filesystem::is_directory(path)) {
      std::vector<std::filesystem::path> inside{std::filesystem::directory_iterator(path), {}};
      std::sort(inside.begin(), inside.end());
      for (std::string& seed : read_seeds(inside)) seeds.push_back(std::move(seed));
      continue;
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  long seconds = 0;
  Xorshift random{20260101};
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--seconds" && i + 1 < argc)
      seconds = std::atol(argv[++i]);
    else if (argument == "--seed" && i + 1 < argc)
      random.state = std::strtoull(argv[++i], nullptr, 10) | 1;  // zero would stay zero
    else
      paths.emplace_back(argument);
  }
  const std::vector<std::string> seeds = read_seeds(paths);
  if (seeds.empty()) {
    std::fprintf(stderr, "usage: %s [--seconds N] [--seed S] FILE_OR_FOLDER...\n", argv[0]);
    return 2;
  }
  std::printf("seed %llu\n", static_cast<unsigned long long>(random.state));
  std::fflush(stdout);
  for (const std::string& seed : seeds) run(seed);
  std::size_t runs = seeds.size();
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds); std::chrono::steady_clock::now() < end; ++runs)
    run(mutated(seeds, random));
  std::printf("%zu inputs\n", runs);
}
