#include <qmill/core/json.h>

#include "io/json_text.h"

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

const char* effect_name(Effect effect) { return effect == Effect::stops ? "stops" : effect == Effect::doubt ? "doubt" : "none"; }

}  // namespace

std::string verify_json(const std::filesystem::path& file, const VerifyReport& report) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings)
    findings.push_back({{"level", finding.is_error() ? "error" : "remark"},
                        {"rule", finding.rule},
                        {"tensor", finding.tensor},
                        {"text", finding.text},
                        {"comfyui", effect_name(finding.comfyui)},
                        {"stable_diffusion_cpp", effect_name(finding.sdcpp)}});
  Json readers = Json::array();
  for (const ReaderVerdict& verdict : report.readers)
    readers.push_back({{"name", verdict.reader},
                       {"loads", verdict.loads ? Json(*verdict.loads) : Json(nullptr)},
                       {"since", verdict.since},
                       {"because", verdict.because}});
  return json_text({{"file", file.string()},
                    {"loads", report.loads()},
                    {"tensors", report.tensors},
                    {"layers", report.layers},
                    {"readers", readers},
                    {"findings", findings}});
}

}  // namespace qmill
