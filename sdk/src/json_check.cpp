#include <qmill/json_check.h>

#include <qmill/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <string>
#include <unordered_set>
#include <vector>

namespace qmill {
namespace {

// Builds nothing: only keys of the objects that are open are kept. (A callback of the parser that builds takes quadratic time: it looks
// through the parent after each object.)
class Checker final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Checker(std::string_view what, int max_depth) : what_(what), max_depth_(max_depth) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(std::size_t) override {
    open();
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return close();
  }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) throw Error(ErrorKind::input, fmt::format("{} names '{}' twice", what_, name));
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    if (dynamic_cast<const nlohmann::json::out_of_range*>(&error) != nullptr)
      throw Error(ErrorKind::input, fmt::format("{} holds a number that is too large", what_));
    throw Error(ErrorKind::input, fmt::format("{} is not valid JSON at byte {}", what_, position));
  }

 private:
  bool open() {
    if (++depth_ > max_depth_) throw Error(ErrorKind::input, fmt::format("{} is nested deeper than {} levels", what_, max_depth_));
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  const std::string_view what_;
  const int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // by open object
};

}  // namespace

void check_json(std::string_view text, std::string_view what, int max_depth) {
  // The parser would take a NUL for the end and pass over what follows.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos)
    throw Error(ErrorKind::input, fmt::format("{} is not valid JSON at byte {}", what, zero + 1));
  Checker checker(what, max_depth);
  nlohmann::json::sax_parse(text, &checker);
}

}  // namespace qmill
