#include "projected_objective.h"

#include <qmill/numerics/low_rank.h>
#include <qmill/numerics/products.h>

#include <algorithm>
#include <cmath>

namespace learned_rounding {

using qmill::LayerContext;
using qmill::multiply;

std::int64_t rank_for(const Settings& settings, std::int64_t rows, std::int64_t columns) {
  const std::int64_t side = std::min(rows, columns);
  const auto share = static_cast<std::int64_t>(std::floor(settings.top_share * static_cast<double>(side)));
  return std::min(side, std::min(settings.largest_rank, std::max(settings.least_rank, share)));
}

Directions dominant_directions(const at::Tensor& weight, const Settings& settings, LayerContext& context) {
  const std::int64_t rank = rank_for(settings, weight.size(0), weight.size(1));
  const qmill::LowRank found =
      settings.full_matrix ? qmill::full_svd(weight, rank) : qmill::low_rank_svd(weight, rank, context.seed(), context);
  return {found.u, found.v};
}

at::Tensor project_rows(const Directions& directions, const at::Tensor& errors_v, LayerContext& context) {
  at::Tensor projected = matrix(directions.rank(), directions.rank(), context);
  multiply(directions.u.t(), errors_v, projected, context);
  return projected;
}

at::Tensor project(const Directions& directions, const at::Tensor& errors, LayerContext& context) {
  at::Tensor errors_v = matrix(errors.size(0), directions.rank(), context);
  multiply(errors, directions.v, errors_v, context);
  return project_rows(directions, errors_v, context);
}

}  // namespace learned_rounding
