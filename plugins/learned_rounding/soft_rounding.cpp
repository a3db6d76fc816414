#include "soft_rounding.h"

#include "schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace learned_rounding {

using qmill::LayerContext;

namespace {

constexpr float kStretch = 1.2f, kBelow = -0.1f;  // h = clamp(sigmoid(v) * kStretch + kBelow, 0, 1)
constexpr float kMargin = 0.4f;                   // how far on its side of 1/2 a code begins: the start is not to be lost
constexpr double kRateOfUsual = 0.01;             // Adam's step in v for the usual "lr"
constexpr float kPush = 0.5f;                     // of the regularizer, with a gradient of the objective of unit mean square
constexpr int kFirstPower = 8, kLastPower = 2;    // its exponent; even
constexpr std::int64_t kChecks = 10;              // how often the hard integers are judged
constexpr double kWorthOfCheck = 0;
constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f, kEpsilon = 1e-8f, kDecay = 0.01f;

// What one iteration does to all values.
struct Step {
  float rate = 0;
  float decay = 0;
  float first_correction = 1;   // 1 / (1 - beta1^t)
  float second_correction = 1;  // 1 / (1 - beta2^t)
  float rectification = 1;
  bool is_adaptive = true;
  int power = kFirstPower;
  float gradient_scale = 1;
};

float odd_power(float x, int exponent) {
  float result = x;
  const float square = x * x;
  for (; exponent > 1; exponent -= 2) result *= square;
  return result;
}

class SoftCodes {
 public:
  SoftCodes(const TileRounder& rounder, const at::Tensor& start, LayerContext& context)
      : rounder_(rounder),
        context_(context),
        lower_(context.allocate(std::array{rounder.rows(), rounder.columns()}, qmill::DType::i8)),
        place_(matrix(rounder.rows(), rounder.columns(), context)),
        first_(matrix(rounder.rows(), rounder.columns(), context).zero_()),
        second_(matrix(rounder.rows(), rounder.columns(), context).zero_()) {
    const auto* codes = start.const_data_ptr<std::int8_t>();
    auto* lower = lower_.mutable_data_ptr<std::int8_t>();
    auto* v = place_.mutable_data_ptr<float>();
    for_rows([&](std::int64_t row) {
      for (std::int64_t k = 0; k < rounder_.columns(); ++k) {
        const std::int64_t i = row * rounder_.columns() + k;
        v[i] = begin_at(row, k, codes[i], lower[i]);
      }
    });
  }

  // decoded - weight of the soft values, or of the codes that they round to.
  void errors(bool hard, at::Tensor& out) const {
    auto* e = out.mutable_data_ptr<float>();
    const auto* v = place_.const_data_ptr<float>();
    const auto* lower = lower_.const_data_ptr<std::int8_t>();
    for_rows([&](std::int64_t row) {
      const float* w = rounder_.weight(row);
      for (std::int64_t k = 0; k < rounder_.columns(); ++k) {
        const std::int64_t i = row * rounder_.columns() + k;
        const float low = rounder_.decoded(row, k, lower[i]), high = rounder_.decoded(row, k, lower[i] + 1);
        const float h = hard ? (v[i] >= 0 ? 1.0f : 0.0f) : soft(v[i]).h;
        e[i] = (h >= 1 ? high : low + h * (high - low)) - w[k];
      }
    });
  }

  at::Tensor codes() const {
    at::Tensor codes = context_.allocate(std::array{rounder_.rows(), rounder_.columns()}, qmill::DType::i8);
    auto* out = codes.mutable_data_ptr<std::int8_t>();
    const auto* v = place_.const_data_ptr<float>();
    const auto* lower = lower_.const_data_ptr<std::int8_t>();
    for (std::int64_t i = 0; i < codes.numel(); ++i) out[i] = static_cast<std::int8_t>(lower[i] + (v[i] >= 0 ? 1 : 0));
    return codes;
  }

  // One step along the gradient of the objective by E. Returns the mean of the regularizer before it.
  double move(const at::Tensor& gradient, const Step& step) {
    const auto* g = gradient.const_data_ptr<float>();
    const auto* lower = lower_.const_data_ptr<std::int8_t>();
    auto* v = place_.mutable_data_ptr<float>();
    auto* first = first_.mutable_data_ptr<float>();
    auto* second = second_.mutable_data_ptr<float>();
    std::vector<double> sums(static_cast<std::size_t>(rounder_.rows()));
    for_rows([&](std::int64_t row) {
      double sum = 0;
      for (std::int64_t k = 0; k < rounder_.columns(); ++k) {
        const std::int64_t i = row * rounder_.columns() + k;
        const Soft now = soft(v[i]);
        const float signed_distance = 2 * now.h - 1;
        const float power = odd_power(signed_distance, step.power - 1);
        sum += 1 - static_cast<double>(power * signed_distance);
        const float slope =
            (g[i] * width(row, k, lower[i]) * step.gradient_scale - kPush * 2 * static_cast<float>(step.power) * power) * now.slope;
        first[i] = kBeta1 * first[i] + (1 - kBeta1) * slope;
        second[i] = kBeta2 * second[i] + (1 - kBeta2) * slope * slope;
        float move = first[i] * step.first_correction;
        if (step.is_adaptive) move *= step.rectification / (std::sqrt(second[i] * step.second_correction) + kEpsilon);
        v[i] -= step.rate * (move + step.decay * v[i]);
      }
      sums[static_cast<std::size_t>(row)] = sum;
    });
    return std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(gradient.numel());
  }

  // Of the objective's gradient by h: what brings its mean square to 1.
  float unit_scale(const at::Tensor& gradient) const {
    const auto* g = gradient.const_data_ptr<float>();
    const auto* lower = lower_.const_data_ptr<std::int8_t>();
    double sum = 0;
    for (std::int64_t row = 0; row < rounder_.rows(); ++row)
      for (std::int64_t k = 0; k < rounder_.columns(); ++k) {
        const std::int64_t i = row * rounder_.columns() + k;
        const double slope = static_cast<double>(g[i]) * static_cast<double>(width(row, k, lower[i]));
        sum += slope * slope;
      }
    return sum > 0 ? static_cast<float>(std::min(1e30, std::sqrt(static_cast<double>(gradient.numel()) / sum))) : 0.0f;
  }

 private:
  struct Soft {
    float h;
    float slope;  // dh/dv
  };

  static Soft soft(float v) {
    const float s = 1 / (1 + std::exp(-v));
    const float stretched = s * kStretch + kBelow;
    const bool is_inside = stretched > 0 && stretched < 1;
    return {std::clamp(stretched, 0.0f, 1.0f), is_inside ? kStretch * s * (1 - s) : 0.0f};
  }

  float width(std::int64_t row, std::int64_t column, int lower) const {
    return rounder_.decoded(row, column, lower + 1) - rounder_.decoded(row, column, lower);
  }

  // The two codes around a value, one of them `code`, and the v of where it begins.
  float begin_at(std::int64_t row, std::int64_t column, std::int8_t code, std::int8_t& lower) const {
    const qmill::Grid& grid = rounder_.codes().grid();
    const float weight = rounder_.weight(row)[column];
    const bool is_scaled = !rounder_.codes().rounds_values();  // a code is worth its grid value times the scale
    const float x = is_scaled ? weight / rounder_.codes().scale(row, column) : weight;
    const auto value = [&](int of) { return is_scaled ? grid.value(of) : rounder_.decoded(row, column, of); };
    const int low = std::clamp(value(code) <= x ? int{code} : code - 1, grid.lowest, grid.highest - 1);
    lower = static_cast<std::int8_t>(low);
    const float gap = value(low + 1) - value(low);
    const float part = gap > 0 ? std::clamp((x - value(low)) / gap, 0.0f, 1.0f) : 0.0f;
    const float h = code == low ? std::min(part, 0.5f - kMargin) : std::max(part, 0.5f + kMargin);
    const float s = (h - kBelow) / kStretch;
    return std::log(s / (1 - s));
  }

  template <class Row>
  void for_rows(Row row_task) const {
    context_.parallel(slices(rounder_.rows()), [&](std::int64_t task) {
      context_.check_cancelled();
      for (std::int64_t row = task * kSliceRows; row < std::min(rounder_.rows(), (task + 1) * kSliceRows); ++row) row_task(row);
    });
  }

  const TileRounder& rounder_;
  LayerContext& context_;
  at::Tensor lower_;
  at::Tensor place_;  // v
  at::Tensor first_;
  at::Tensor second_;
};

Step step_for(std::int64_t iteration, const Settings& settings, double rate) {
  const auto t = static_cast<double>(iteration + 1);
  Step step;
  step.rate = static_cast<float>(rate / kUsualRate * kRateOfUsual);
  step.first_correction = static_cast<float>(1 / (1 - std::pow(static_cast<double>(kBeta1), t)));
  const double rest = std::pow(static_cast<double>(kBeta2), t);
  step.second_correction = static_cast<float>(1 / (1 - rest));
  if (settings.variant == Variant::adamw) {
    step.decay = kDecay;
  } else {
    const double longest = 2 / (1 - static_cast<double>(kBeta2)) - 1;
    const double length = longest - 2 * t * rest / (1 - rest);
    step.is_adaptive = length > 5;
    if (step.is_adaptive)
      step.rectification = static_cast<float>(std::sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)));
  }
  const double done = static_cast<double>(iteration) / static_cast<double>(settings.iterations);
  step.power = 2 * static_cast<int>(std::lround((kFirstPower + (kLastPower - kFirstPower) * done) / 2));
  return step;
}

}  // namespace

SoftRounding round_softly(const TileRounder& rounder, const at::Tensor& start, const ErrorObjective& objective, const Settings& settings,
                          LayerContext& context) {
  SoftRounding result{start};
  at::Tensor gradient = matrix(rounder.rows(), rounder.columns(), context);
  at::Tensor errors = all_errors(rounder, start, context);
  result.value_start = result.value = objective.gradient(errors, gradient);
  if (!(result.value_start > 0)) return result;

  SoftCodes soft(rounder, start, context);
  RateSchedule schedule(settings.schedule, rounder.rows(), rounder.columns());
  StopRule stop(settings, kWorthOfCheck);
  const auto keep_if_better = [&] {
    soft.errors(true, errors);
    const double value = objective.gradient(errors, gradient);
    if (!(value < result.value)) return;
    result.value = value;
    result.codes = soft.codes();
  };
  const std::int64_t interval = std::max<std::int64_t>(1, settings.iterations / kChecks);
  float gradient_scale = 0;
  double first_sum = 0;  // of the objective and the regularizer
  while (result.iterations < settings.iterations) {
    soft.errors(false, errors);
    const double value = objective.gradient(errors, gradient);
    if (gradient_scale == 0) gradient_scale = soft.unit_scale(gradient);
    Step step = step_for(result.iterations, settings, schedule.rate());
    step.gradient_scale = gradient_scale;
    const double indecision = soft.move(gradient, step);
    const double sum = value / result.value_start + static_cast<double>(kPush) * indecision;
    if (first_sum == 0) first_sum = sum;
    const double loss = sum / first_sum;
    schedule.after(loss);
    if (++result.iterations % interval == 0) keep_if_better();
    if (value <= settings.stop.loss * result.value_start || stop.stops_after(loss, schedule.rate())) break;
  }
  keep_if_better();
  return result;
}

}  // namespace learned_rounding
