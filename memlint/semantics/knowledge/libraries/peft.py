"""PEFT, as data. Source: peft 0.21.2."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls

PEFT = Library(
    packages=("peft",),
    # peft_model.py: PeftModel(PushToHubMixin, torch.nn.Module) and its subclasses, one a task; auto.py.
    classes={"PeftModel": Class(Role.MODULE)},
    prefixes={"PeftModelFor": Class(Role.MODULE), "AutoPeftModel": Class(Role.MODULE)},
    # mapping_func.py: get_peft_model wraps the model; utils/other.py: prepare_model_for_kbit_training returns it.
    functions=calls(
        Effect.RETURNS_FIRST,
        "get_peft_model prepare_model_for_kbit_training prepare_model_for_int8_training inject_adapter_in_model",
    ),
)
