#include "run/journal.h"

#include "io/file_identity.h"
#include "io/json_text.h"
#include "io/remove_file.h"
#include "io/text_file.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kMaxJournalBytes = std::uint64_t{1} << 30;
constexpr std::string_view kPublishing = R"({"publishing":true})";

// Exactly, NaN and infinity included.
std::string exact(double value) { return fmt::format("{:a}", value); }
double number(const Json& text) { return std::strtod(text.get_ref<const std::string&>().c_str(), nullptr); }

Json exact(const std::optional<double>& value) { return value ? Json(exact(*value)) : Json(nullptr); }
std::optional<double> optional_number(const Json& text) { return text.is_null() ? std::nullopt : std::optional(number(text)); }

Json report_line(const LayerReport& report) {
  const LayerQuality& quality = report.quality;
  Json statistics = Json::object();
  for (const auto& [name, value] : report.statistics) statistics[name] = exact(value);
  return {{"name", quality.name},
          {"format", quality.format},
          {"layout", quality.layout},
          {"mse", exact(quality.mse)},
          {"sqnr_db", exact(quality.sqnr_db)},
          {"max_error", exact(quality.max_error)},
          {"output_error", exact(quality.output_error)},
          {"rounding_output_error", exact(quality.rounding_output_error)},
          {"output_rows", quality.output_rows},
          {"measured", quality.is_measured},
          {"quantizer", report.quantizer},
          {"notes", report.notes},
          {"statistics", statistics},
          {"seconds", exact(report.seconds)}};
}

LayerReport report_of(const Json& line) {
  LayerReport report;
  LayerQuality& quality = report.quality;
  quality.name = line.at("name").get<std::string>();
  quality.format = line.at("format").get<std::string>();
  quality.layout = line.at("layout").get<std::string>();
  quality.mse = number(line.at("mse"));
  quality.sqnr_db = optional_number(line.at("sqnr_db"));
  quality.max_error = number(line.at("max_error"));
  quality.output_error = optional_number(line.at("output_error"));
  quality.rounding_output_error = optional_number(line.at("rounding_output_error"));
  quality.output_rows = line.at("output_rows").get<std::int64_t>();
  quality.is_measured = line.at("measured").get<bool>();
  report.quantizer = line.at("quantizer").get<std::string>();
  report.notes = line.at("notes").get<std::vector<std::string>>();
  for (const auto& [name, value] : line.at("statistics").items()) report.statistics[name] = number(value);
  report.seconds = number(line.at("seconds"));
  return report;
}

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

Json entry_json(const JournalEntry& entry) {
  Json tensors = Json::object();
  for (const auto& [tensor, hash] : entry.hashes) tensors[tensor] = hash;
  return {{"tensors", tensors}, {"report", entry.report ? report_line(*entry.report) : Json(nullptr)}};
}

JournalEntry parse_entry(const Json& json) {
  JournalEntry entry;
  for (const auto& [tensor, hash] : json.at("tensors").items()) entry.hashes[tensor] = hash.get<std::string>();
  if (!json.at("report").is_null()) entry.report = report_of(json["report"]);
  return entry;
}

std::filesystem::path journal_of(const std::filesystem::path& destination) { return destination.string() + ".qmill-journal"; }

std::string conversion_identity(const Plan& plan) {
  Json files = Json::array();
  for (const PlannedInput& input : plan.inputs)
    files.push_back({{"file", input.file.filename().string()}, {"bytes", input.bytes}, {"modified", input.modified}});
  return line_of({{"qmill_journal", 1}, {"plan", plan.digest()}, {"files", files}});
}

std::string differing_file(const std::string& found, const std::string& wanted) {
  const Json ours = Json::parse(wanted).at("files");
  const Json theirs = Json::parse(found, nullptr, false);
  const auto files = theirs.find("files");  // not copied: it may be deeper than a stack
  if (files == theirs.end() || !files->is_array()) return "";
  for (std::size_t i = 0; i < std::min(ours.size(), files->size()); ++i)
    if ((*files)[i] != ours[i]) return ours[i].at("file").get<std::string>();
  return "";
}

Journal::Journal(std::filesystem::path file, std::string identity, bool resume) : path_(std::move(file)), identity_(std::move(identity)) {
  std::error_code ignored;
  if (resume && std::filesystem::exists(path_, ignored)) read();
}

bool was_publishing(const std::filesystem::path& journal) {
  std::error_code ignored;
  if (!std::filesystem::exists(journal, ignored)) return false;
  return read_text_file(journal, kMaxJournalBytes).ends_with(fmt::format("\n{}\n", kPublishing));
}

Journal::~Journal() {
  if (kept_ || (file_ == nullptr && !dropped_)) return;  // that of another run, perhaps
  file_.reset();
  remove_file(path_);
}

void Journal::read() {
  kept_ = true;  // whatever is wrong with it
  const auto refuse = [&](ErrorKind kind, std::string message) {
    throw Error(kind, std::move(message),
                "repeat the command that began it, or remove the .qmill-part and the .qmill-journal to begin anew")
        .in(fmt::format("'{}'", path_.string()));
  };
  const std::string text = read_text_file(path_, kMaxJournalBytes);
  for (std::size_t begin = 0, end = text.find('\n'); end != std::string::npos; begin = end + 1, end = text.find('\n', begin)) {
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const Json json = Json::parse(line, nullptr, false);
    was_publishing_ = begin != 0 && line == kPublishing;
    if (was_publishing_) {
      read_bytes_ = end + 1;
      continue;
    }
    if (begin == 0) {
      if (!json.is_object() || !json.contains("qmill_journal")) refuse(ErrorKind::input, "it is no journal of qmill");
      if (std::string_view(text).substr(0, end + 1) != identity_) {
        const std::string file = differing_file(text.substr(0, end + 1), identity_);
        refuse(ErrorKind::usage,
               fmt::format("it is of another conversion: {}", file.empty()
                                                                  ? "the options, the model or the version of qmill are not those of then"
                                                                  : fmt::format("'{}' is not the file that it was then", file)));
      }
    } else {
      try {
        found_.insert_or_assign(json.at("name").get<std::string>(), parse_entry(json));
      } catch (const Json::exception&) {
        break;  // cut short by a crash: what follows is not known
      }
    }
    read_bytes_ = end + 1;
  }
  count_ = found_.size();
}

void Journal::add(const std::string& name, const JournalEntry& entry) {
  Json line = entry_json(entry);
  line["name"] = name;
  pending_ += line_of(line);
  if (!found_.contains(name)) ++count_;
}

void Journal::note_publishing(bool sync) {
  pending_ += fmt::format("{}\n", kPublishing);
  flush(sync);
}

void Journal::flush(bool sync) {
  if (pending_.empty()) return;
  if (file_ == nullptr) {
    file_ = std::make_unique<AppendFile>(path_, read_bytes_);
    if (read_bytes_ == 0) pending_.insert(0, identity_);
  }
  file_->add(pending_, sync);
  pending_.clear();
}

}  // namespace qmill
