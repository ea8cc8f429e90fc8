// guided_step, with coefficients or with a table: tensors to kernel arguments.
#pragma once

#include <algorithm>

#include "run.h"
#include "tensors.h"

namespace nd {
namespace {

// One look at each property: for a small tensor every call into torch counts.
void check_terms(const std::vector<Tensor>& terms) {
  ND_MUST(!terms.empty() && terms.size() <= size_t(kMaxTerms), "terms must be 1 to ", kMaxTerms, " tensors, got ",
          terms.size(), ".");
  must_be_floating(terms[0], {"terms", 0});
  const auto sizes = terms[0].sizes();
  const bool wide = terms[0].scalar_type() == ScalarType::Double;
  for (size_t i = 1; i < terms.size(); ++i) {
    const Name name{"terms", int64_t(i)};
    must_be_floating(terms[i], name);
    must_be_beside(terms[i], terms[0], name, "terms[0]");
    const auto own = terms[i].sizes();
    if (own.size() != sizes.size() || !std::equal(own.begin(), own.end(), sizes.begin()))
      must_have_shape(terms[i], terms[0], name);
    ND_MUST((terms[i].scalar_type() == ScalarType::Double) == wide, name,
            " must be float64 if and only if terms[0] is. Convert one of them.");
  }
}

// Brings all terms into the memory format of the first and allocates the output.
Tensor set_terms(GuidedStep& args, std::vector<Tensor>& terms) {
  const bool plain = terms[0].is_contiguous() || !is_channels_last(terms[0]);
  const MemoryFormat format = plain ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
  const Tensor out = new_tensor(terms[0], terms[0].sizes(), terms[0].scalar_type(), format);
  args.n_terms = int(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!plain || !terms[i].is_contiguous()) terms[i] = contiguous(terms[i], format);
    args.term[i] = terms[i].const_data_ptr();
    args.term_type[i] = type_of(terms[i]);
  }
  args.out = out.mutable_data_ptr();
  args.out_type = type_of(terms[0]);
  args.batch = 1;
  args.per_image = out.numel();
  return out;
}

Tensor guided_step(std::vector<Tensor> terms, std::vector<double> coefficients) {
  check_terms(terms);
  ND_MUST(coefficients.size() == terms.size(), "coefficients must be one per term (", terms.size(), "), got ",
          coefficients.size(), ".");
  GuidedStep args{};
  for (size_t i = 0; i < coefficients.size(); ++i) {
    ND_MUST(std::isfinite(coefficients[i]), Name{"coefficients", int64_t(i)}, " must be a finite number, got ",
            coefficients[i], ".");
    args.coefficient[i] = coefficients[i];
  }
  const Tensor out = set_terms(args, terms);
  if (args.per_image > 0) ND_RUN(guided_step, args, terms[0]);
  return out;
}

void check_table(const Tensor& table, const std::vector<Tensor>& terms) {
  const Tensor& first = terms[0];
  ND_MUST(first.dim() >= 1, "terms[0] must be (batch, ...) when a table is used, got a single number.");
  ND_MUST(table.scalar_type() == ScalarType::Double,
          "table must be float64, so that folded coefficients keep their digits.");
  ND_MUST(table.dim() == 2 && (table.size(0) == 1 || table.size(0) == first.size(0)) &&
              table.size(1) == int64_t(terms.size()),
          "table must be shaped (", first.size(0), " or 1, ", terms.size(), "), got ", shape_of(table), ".");
  must_be_beside(table, first, {"table"}, "the terms");
}

// On the host the values themselves can be looked at.
void check_values(const GuidedStep& args) {
  for (int64_t i = 0; i < args.table_images * args.n_terms; ++i)
    ND_MUST(std::isfinite(args.table[i]), "table must hold finite numbers, got ", args.table[i], ".");
}

Tensor guided_step_table(std::vector<Tensor> terms, Tensor table) {
  check_terms(terms);
  check_table(table, terms);
  GuidedStep args{};
  const Tensor out = set_terms(args, terms);
  table = contiguous(table);
  args.batch = terms[0].size(0);
  args.per_image = args.batch ? out.numel() / args.batch : 0;
  args.table = static_cast<const double*>(table.const_data_ptr());
  args.table_images = table.size(0);
  if (terms[0].is_cpu()) check_values(args);
  if (out.numel() > 0) ND_RUN(guided_step, args, terms[0]);
  return out;
}

}  // namespace
}  // namespace nd
