"""The keyvault: secrets of the workspace, encrypted at rest."""
