_base_ = './_base_/{{$CAC_STUDY_PROTOCOL:voc-animals}}.py'
model = dict(decode_head=dict(type='CaCHead'))
