"""One file configures the agent; `SRM_*` variables override it; secrets come from a credentials directory."""

from srm_agent.settings.credentials import Credentials, Secret
from srm_agent.settings.load import load
from srm_agent.settings.models import ConnectionSettings, ProtectionSettings, Settings, VenueSettings

__all__ = ["ConnectionSettings", "Credentials", "ProtectionSettings", "Secret", "Settings", "VenueSettings", "load"]
