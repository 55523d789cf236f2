"""Generated from schemas/ by scripts/generate_protos.py; do not edit."""
