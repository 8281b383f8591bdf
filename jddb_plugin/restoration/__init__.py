"""Restoration of bursts: from files to pictures.

    from jddb_plugin.restoration import Restorer, Settings
    restorer = Restorer('net_g.pth', Settings(noise='estimate'))
    restorer.restore('folder_of_raw_files', 'picture.png')
"""
from jddb_plugin.restoration.bursts import Burst, burst_of_files, find_bursts
from jddb_plugin.restoration.restorer import Restored, Restorer, Settings

__all__ = ['Burst', 'Restored', 'Restorer', 'Settings', 'burst_of_files', 'find_bursts']
