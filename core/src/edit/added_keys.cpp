// The grammar of --add-keys: JSON, or the loose form that older tools take.
#include "io/json_text.h"

#include <qmill/core/edit.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

// Objects, lists and texts are taken apart here, where both quotes may stand; numbers, words of JSON and escapes are the library's.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json parse() {
    skip_space();
    Json object = Json::object();
    if (next() == '{') {
      ++at_;
      object = members('}', 1);
    } else {
      object = members('\0', 0);
    }
    skip_space();
    if (at_ != text_.size()) fail("nothing more");
    if (object.empty()) throw Error(ErrorKind::usage, "the keys to add are empty", "give 'key': value, or a JSON object");
    return object;
  }

 private:
  static constexpr int kMaxDepth = 32;

  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }

  [[noreturn]] void fail(std::string_view expected) const {
    throw Error(ErrorKind::usage,
                fmt::format("the keys to add are wrong at character {}: expected {}, found {}", at_ + 1, expected,
                            at_ < text_.size() ? fmt::format("'{}'", text_.substr(at_, 12)) : "the end"),
                "give 'key': value, 'key': value, or a JSON object");
  }

  // 'key': value, ... up to `close`, which is taken; '\0': up to the end.
  Json members(char close, int depth) {
    if (depth > kMaxDepth) fail("less nesting");
    Json object = Json::object();
    skip_space();
    if (next() == close && (close != '\0' || at_ == text_.size())) {
      if (close != '\0') ++at_;
      return object;
    }
    for (;;) {
      skip_space();
      const std::string key = text("a key");
      if (object.contains(key)) throw Error(ErrorKind::usage, fmt::format("the keys to add name '{}' twice", key));
      skip_space();
      if (next() != ':') fail(fmt::format("':' after key '{}'", key));
      ++at_;
      object[key] = value(depth);
      if (is_last(close)) return object;
    }
  }

  Json list(int depth) {
    if (depth > kMaxDepth) fail("less nesting");
    Json list = Json::array();
    skip_space();
    if (next() == ']') {
      ++at_;
      return list;
    }
    for (;;) {
      list.push_back(value(depth));
      if (is_last(']')) return list;
    }
  }

  // Takes a comma, or what closes.
  bool is_last(char close) {
    skip_space();
    if (close == '\0' ? at_ == text_.size() : next() == close) {
      if (close != '\0') ++at_;
      return true;
    }
    if (next() != ',') fail(close == '\0' ? "',' or the end" : fmt::format("',' or '{}'", close));
    ++at_;
    return false;
  }

  Json value(int depth) {
    skip_space();
    const char first = next();
    if (first == '{') return ++at_, members('}', depth + 1);
    if (first == '[') return ++at_, list(depth + 1);
    if (first == '\'' || first == '"') return text("a text");
    const std::string token = word();
    if (token.empty()) fail("a value");
    if (token == "True") return true;
    if (token == "False") return false;
    if (token == "None") return nullptr;
    Json parsed = Json::parse(token, nullptr, false);
    if (!parsed.is_discarded()) return parsed;
    if (is_not_finite(token)) {
      at_ -= token.size();
      fail("a number that JSON has, or a text in quotes");
    }
    if (std::isalpha(static_cast<unsigned char>(token.front())) == 0 && token.front() != '_') {
      at_ -= token.size();
      fail("a value");
    }
    return token;
  }

  // Words that other languages take for numbers: as texts they would stand where a number was meant.
  static bool is_not_finite(std::string word) {
    std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    constexpr std::array<std::string_view, 3> kWords = {"nan", "inf", "infinity"};
    return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
  }

  std::string word() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  std::string_view("_-+.").find(text_[at_]) != std::string_view::npos))
      ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  // In single or double quotes, or one word.
  std::string text(std::string_view what) {
    const char quote = next();
    if (quote != '\'' && quote != '"') {
      std::string token = word();
      if (token.empty()) fail(what);
      return token;
    }
    const std::size_t begin = at_++;
    std::string as_json = "\"";
    for (; next() != quote; ++at_) {
      if (at_ == text_.size()) {
        at_ = begin;
        fail("a text that ends with its quote");
      }
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        if (text_[at_ + 1] != '\'') as_json += '\\';
        as_json += text_[++at_];
      } else {
        if (text_[at_] == '"') as_json += '\\';  // inside single quotes
        as_json += text_[at_];
      }
    }
    ++at_;
    const Json parsed = Json::parse(as_json + "\"", nullptr, false);
    if (!parsed.is_string()) {
      at_ = begin;
      fail("a text with the escapes of JSON");
    }
    return parsed.get<std::string>();
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::string parse_added_keys(std::string_view text) { return Parser(text).parse().dump(); }

}  // namespace qmill
